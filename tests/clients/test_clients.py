"""Configurations of clients: each is what its reader takes, and the Python ones are run."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kimideploy.catalog.load import load_catalog
from kimideploy.resources import shipped
from tests.contract.servers import FLAGS, free_port, stand_in
from tests.middleware import runs

CATALOG = load_catalog()
#: with the context of the real model: clients ask for 32,768 tokens
FLAGS_OF_MODEL = ["262144" if word == "8192" else word for word in FLAGS]
ARGV = ("vllm", "serve", "moonshotai/Kimi-K2.7-Code", *FLAGS_OF_MODEL)
AIDER = Path(__file__).parents[1] / "middleware" / "aider.txt"
NAMES = [client.id for client in CATALOG.clients]


def client(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Return exit code and both outputs of `kimideploy client`."""
    done = subprocess.run(
        [sys.executable, "-m", "kimideploy", "client", *words], capture_output=True, text=True,
        timeout=60, check=False, cwd=cwd, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def files(name: str, *words: str) -> dict[str, str]:
    """Return path → text of a client's files."""
    code, out, err = client(name, "--json", *words)
    assert 0 == code, err
    return dict(json.loads(out)["files"])


def parsed(path: str, text: str) -> Any:
    """Return what the file's reader makes of *text*."""
    match Path(path).suffix:
        case ".json":
            return json.loads(text)
        case ".yaml" | ".yml":
            return yaml.safe_load(text)
        case ".toml":
            toml = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
            return toml.loads(text)
        case ".py":
            compile(text, path, "exec")
            return text
        case other:
            raise AssertionError(f"no reader for {other}")


# --- every client ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_its_reader_takes_it(name: str) -> None:
    """Well-formed, with the endpoint, the model and room to think; and no key."""
    words = ("--url", "http://gpu1:9001", "--model", 'a "quoted" model')
    found = files(name, *words, "--key-env", "MY_KEY")

    values = json.dumps([parsed(path, text) for path, text in found.items()])
    assert "http://gpu1:9001" in values
    assert "quoted" in values
    assert "32768" in values or name == "kimi-cli"
    assert "262144" in values or name in ("openai-python", "langchain")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_proved_is_said(name: str) -> None:
    """A client that was not run carries a note, and a source with a day."""
    found = next(one for one in CATALOG.clients if one.id == name)
    sources = yaml.safe_load((shipped("profiles") / "clients.yaml").read_text("utf-8"))["sources"]

    assert found.source in sources
    assert found.note or not found.guess
    _, _, err = client(name)
    assert f"reasoning of earlier turns: {found.reasoning}" in err
    assert ("unproved:" in err) == found.guess
    assert all(len(line) <= 80 for line in err.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["opencod"], "did you mean `opencode`?"),
        (["aider", "--key-env", "A B"], "is no name of a variable"),
        (["aider", "--url", "ftp://x"], "is no http or https address"),
        (["aider", "--model", "a\nb"], "must be plain text"),
        (["aider", "--url", "http://k:v@x"], "a key goes in --api-key-file"),
    ],
)
def test_what_can_not_be_configured(words: list[str], said: str) -> None:
    """One sentence each."""
    code, out, err = client(*words)

    assert (2, "") == (code, out)
    assert said in err


def test_writing_asks_before_it_replaces(tmp_path: Path) -> None:
    """Not at all where nobody can be asked; with --yes what was there stays as *.old."""
    words = ("aider", "--write", "--to", str(tmp_path))
    assert 0 == client(*words)[0]
    assert 0 == client(*words)[0], "the same again is no change"
    changed = (*words, "--model", "other")

    code, _, err = client(*changed)
    assert 2 == code
    assert "there is one already" in err
    assert "other" not in (tmp_path / ".aider.conf.yml").read_text("utf-8")
    assert 0 == client(*changed, "--yes")[0]
    assert "other" in (tmp_path / ".aider.conf.yml").read_text("utf-8")
    assert "kimi-k2.7-code" in (tmp_path / ".aider.conf.yml.old").read_text("utf-8")


@pytest.mark.parametrize(("answer", "code", "model"), [("y", 0, "other"), ("n", 1, "kimi")])
def test_on_a_terminal_it_asks(tmp_path: Path, answer: str, code: int, model: str) -> None:
    """And does what it is told."""
    words = ["client", "openai-python", "--write", "--to", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "kimideploy", *words], check=True, capture_output=True)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kimideploy", *words, "--model", "other"],
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs,
    ) as process:  # fmt: skip
        os.write(ours, f"{answer}\n".encode())
        assert code == process.wait(60)
    os.close(ours)
    os.close(theirs)

    assert f'"{model}' in (tmp_path / "kimi.py").read_text("utf-8")


# --- those that are Python packages ------------------------------------------------------


@contextmanager
def recorded() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint in front of the stand-in that keeps the bodies of requests."""
    seen: list[dict[str, Any]] = []
    with stand_in(ARGV) as engine:
        from kimideploy.conformance.client import Client  # noqa: PLC0415

        there = Client(f"http://127.0.0.1:{engine.port}")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append(body)
                reply = there.post(self.path, {**body, "stream": False, "stream_options": None},
                                   timeout=60)  # fmt: skip
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}", seen
            server.shutdown()


@pytest.mark.parametrize(
    ("name", "path"), [("openai-python", "kimi.py"), ("langchain", "chat_kimi.py")]
)
def test_the_programs_run(tmp_path: Path, name: str, path: str) -> None:
    """As they are printed; the endpoint is asked with the model's own sampling."""
    with recorded() as (url, seen):
        (tmp_path / path).write_text(files(name, "--url", url)[path], encoding="utf-8")
        done = subprocess.run(
            [runs.python(), path], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    assert (0, "391\n") == (done.returncode, done.stdout), done.stderr
    asked = seen[0]
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens")
    assert (1.0, 0.95, 32_768) == (asked["temperature"], asked["top_p"], limit)


LOOPS = {
    "openai-python": """\
import kimi
tool = {"type": "function", "function": {"name": "run_python", "description": "Run.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}}}}
history = [{"role": "system", "content": "s"}, {"role": "user", "content": "Compute."}]
kimi.ask(history, [tool], lambda name, arguments: 1)
""",
    "langchain": """\
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from chat_kimi import model

@tool
def run_python(code: str, note: str = "") -> str:
    "Run."
    return "1"

bound = model.bind_tools([run_python])
messages = [SystemMessage("s"), HumanMessage("Compute.")]
while True:
    message = bound.invoke(messages)
    messages.append(message)
    if not message.tool_calls:
        break
    messages += [ToolMessage("1", tool_call_id=call["id"]) for call in message.tool_calls]
""",
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_programs_keep_the_reasoning(tmp_path: Path, name: str) -> None:
    """Under audit, over three turns: nothing that matters is lost."""
    port = free_port()
    for path, text in files(name, "--url", f"http://127.0.0.1:{port}").items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "loop.py").write_text(LOOPS[name], encoding="utf-8")

    code, report = runs.audited("--port", str(port), "--", runs.python(), str(tmp_path / "loop.py"))

    assert (0, 3) == (code, report.steps)
    fates = {fate.field: fate.what for fate in report.fates}
    assert ("kept", "kept") == (fates["reasoning"], fates["tool ids"])


def test_litellm_takes_its_configuration(tmp_path: Path) -> None:
    """The proxy starts from it, asks the endpoint with our sampling, and keeps the reasoning."""
    upstream, port = free_port(), free_port()
    words = ("--url", f"http://127.0.0.1:{upstream}")
    (tmp_path / "litellm.yaml").write_text(files("litellm", *words)["litellm.yaml"], "utf-8")
    (tmp_path / "key").write_text(runs.KEY, encoding="utf-8")
    argv = [str(runs.home() / "bin" / "litellm"), "--config", str(tmp_path / "litellm.yaml")]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    env = {"LITELLM_MASTER_KEY": runs.KEY, "KIMI_API_KEY": "none"}
    url = f"http://127.0.0.1:{port}"
    with runs.running(argv, f"{url}/health/liveliness", env):
        code, report = runs.audited(
            "--port", str(upstream), "--through", url, "--api-key-file", str(tmp_path / "key")
        )

    assert 0 == code
    assert {"kept", "renamed"} >= {fate.what for fate in report.fates if fate.field == "reasoning"}


def test_aider_takes_its_configuration(tmp_path: Path) -> None:
    """The real aider, told by its three files, asks the endpoint with our sampling and limits."""
    home = runs.home(AIDER)
    with recorded() as (url, seen):
        for path, text in files("aider", "--url", url).items():
            (tmp_path / path).write_text(text, encoding="utf-8")
        (tmp_path / "a.txt").write_text("hello\n", encoding="utf-8")
        words = ["--no-git", "--yes-always", "--no-stream", "--no-check-update", "--no-analytics",
                 "--no-show-release-notes", "--no-show-model-warnings", "--message",
                 "What is 17 times 23?", "a.txt"]  # fmt: skip
        done = subprocess.run(
            [str(home / "bin" / "aider"), *words], cwd=tmp_path, capture_output=True, text=True,
            timeout=runs.LIMIT, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "OPENAI_API_KEY": "none", "HOME": str(tmp_path)},
        )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr
    asked = next(body for body in seen if body["messages"])
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens")
    assert ("kimi-k2.7-code", 1.0, 0.95, 32_768) == (
        asked["model"], asked["temperature"], asked["top_p"], limit,
    )  # fmt: skip
