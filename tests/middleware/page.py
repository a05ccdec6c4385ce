"""docs/middleware.md, written from real runs: `python -m tests.middleware.page`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kimideploy.conformance.audit.report import Report
from kimideploy.views.audit import page
from tests.middleware.runs import (
    PROXY_MODEL,
    REQUIREMENTS,
    Proxy,
    guard,
    litellm,
    looped,
    looped_through,
    through,
)

PAGE = Path(__file__).parents[2] / "docs" / "middleware.md"
_HEAD = """\
# What lies between Kimi and you

Kimi K2.7-Code needs the reasoning of its earlier answers. Hosted, a history without it is an error;
self-hosted the answers just get worse. So these were audited, each by the real thing against a
strict stand-in (`kimideploy audit`), with{versions}.

This page is written by `python -m tests.middleware.page`, and a test holds it against new runs.
To audit your own: `kimideploy audit -- COMMAND {{url}}`, or `--through URL` for a proxy.

"""
#: loop → what it is called, and what it does
_LOOPS = {
    "raw_keeps": ("httpx, message appended", "The answer's message goes back as it came."),
    "raw_drops": (
        "httpx, message rebuilt",
        "The answer is built anew of role, content and calls: the pattern of many examples.",
    ),
    "openai_keeps": (
        "openai, model_dump",
        "`messages.append(message.model_dump(exclude_none=True))`",
    ),
    "openai_object": (
        "openai, the object",
        "`messages.append(message)`, as the package's guide does.",
    ),
    "openai_drops": ("openai, fields picked", "Role, content and tool calls are picked by hand."),
    "openai_streams": (
        "openai, streamed",
        "Deltas are gathered by hand, `delta.reasoning` among them.",
    ),
    "langchain_loop": ("LangChain", "`ChatOpenAI.bind_tools`, messages appended as they came."),
}  # fmt: skip


def reports() -> Iterator[tuple[str, str, Report]]:
    """Yield name, sentence and report of every run."""
    for loop, (name, about) in _LOOPS.items():
        yield name, about, looped(loop)[1]
    with guard("repair") as proxy:
        about = "`kimideploy guard run URL --missing repair` before the engine, asked by LangChain."
        yield "LangChain behind our guard", about, looped_through(proxy, "langchain_loop")[1]
    for provider in ("openai", "hosted_vllm"):
        with tempfile.TemporaryDirectory() as folder, litellm(Path(folder), provider) as proxy:
            about = f"The proxy with a model of provider `{provider}/`, asked by our own client."
            yield f"LiteLLM, {provider}", about, through(proxy, Path(folder))[1]
            if provider == "hosted_vllm":
                about = "The anthropic package against LiteLLM's `/v1/messages`."
                report = looped_through(proxy, "anthropic_loop", PROXY_MODEL)[1]
                yield "anthropic through LiteLLM", about, report
    with (
        tempfile.TemporaryDirectory() as folder,
        guard("repair") as door,
        litellm(Path(folder), "hosted_vllm", upstream=int(door.url.rpartition(":")[2])) as proxy,
    ):
        about = "The same, with `kimideploy guard run` between LiteLLM and the engine."
        behind = Proxy(proxy.url, door.upstream)
        report = looped_through(behind, "anthropic_loop", PROXY_MODEL)[1]
        yield "anthropic, LiteLLM, our guard", about, report


def text() -> str:
    """Return the page."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", REQUIREMENTS.read_text("utf-8"), re.MULTILINE))
    named = ("httpx", "openai", "anthropic", "langchain-openai", "litellm")
    versions = "\n" + ", ".join(f"{name} {pins[name]}" for name in named)
    body = page([(name, about, report) for name, about, report in reports()])
    return _HEAD.format(versions=versions) + body


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
