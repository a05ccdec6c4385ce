"""The stand-in as the far end of an audit: it leads a tool loop, and keeps what arrives.

It answers as vLLM does, strictly: an answer with tool calls that comes back without its reasoning
is refused in the words of Moonshot's API.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kimideploy.errors import BusyError
from kimideploy.rehearsal.brain import answer
from kimideploy.rehearsal.refuse import refused
from kimideploy.rehearsal.server import Server
from kimideploy.rehearsal.types import Call, Mind, Problem, Reply

#: steps of the loop: two calls at once, one more, then words
STEPS = 3
_CONTEXT = 262_144


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chat request as it came, and what was answered: a refusal, or the loop's step."""

    body: dict[str, Any]
    refusal: str | None = None
    step: int | None = None


@dataclass(slots=True)
class Upstream:
    """Where it listens, and what arrived so far."""

    url: str
    arrived: list[Arrived] = field(default_factory=list)


@contextmanager
def upstream(model: str, port: int, *, strict: bool) -> Iterator[Upstream]:
    """Yield a stand-in for *model* on loopback until the end; raises BusyError for a port in use.

    `port` 0 is a free one.
    """
    mind = Mind(
        engine="vllm",
        model=model,
        root=model,
        context=_CONTEXT,
        reasoning_parser=True,
        tool_parser=True,
        auto_tools=True,
        strict_thinking=strict,
    )
    try:
        server = Server(("127.0.0.1", port), mind)
    except OSError as error:
        raise BusyError(f"port {port} is in use", hint="--port with another, or 0") from error
    server.quiet = True
    found = Upstream(f"http://127.0.0.1:{server.server_port}")
    server.think = _led

    def heard(body: Any, reply: Reply | Problem) -> None:
        if not isinstance(body, dict):
            return
        refusal = reply.message if isinstance(reply, Problem) else None
        step = step_of(body) if refusal is None and leads(body) else None
        found.arrived.append(Arrived(body, refusal, step))

    server.heard = heard
    server.server_activate()
    server.ready.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def leads(body: Any) -> bool:
    """Return whether a request takes part in a tool loop."""
    return isinstance(body, dict) and bool(body.get("tools"))


def step_of(body: dict[str, Any]) -> int:
    """Return which step of the loop a request asks for: as many as there were answers with calls.

    Counted from the last question on, so that one conversation may lead several loops.
    """
    messages = [one for one in body["messages"] if isinstance(one, dict)]
    asked = [n for n, one in enumerate(messages) if one.get("role") == "user"]
    rest = messages[asked[-1] if asked else 0 :]
    return sum(1 for one in rest if one.get("role") == "assistant" and one.get("tool_calls"))


def thought(step: int) -> str:
    """Return what is thought at *step*: long, with many kinds of letters and blanks at its ends."""
    lines = [
        f"{number}. step {step}: ½ → “ünïcödé” 思考 \\n {{}} </b> &amp;" for number in range(40)
    ]
    return "\n".join([f" I think before step {step}.", *lines, f"So I take step {step}. "])


def calls(step: int, tool: str) -> tuple[Call, ...]:
    """Return what is called at *step*."""
    given = '{"code":"print(1)","note":"½ \\"quoted\\" 思考"}'
    numbers = {0: (0, 1), 1: (2,)}.get(step, ())
    return tuple(Call(f"functions.{tool}:{number}", tool, given) for number in numbers)


def said(step: int) -> str | None:
    """Return what is said beside the calls of *step*, or at the end."""
    return {0: "I look it up first.", STEPS - 1: "It is done."}.get(step)


def _led(body: Any, mind: Mind, turn: int) -> Reply | Problem:
    if not leads(body):
        return answer(body, mind, turn)
    problem = refused(body, mind)
    if problem is not None:
        return problem
    step = min(step_of(body), STEPS - 1)
    tool = str(body["tools"][0]["function"]["name"])
    made = calls(step, tool)
    return Reply(
        model=mind.model,
        reasoning=thought(step),
        content=said(step),
        calls=made,
        finish="tool_calls" if made else "stop",
        prompt_tokens=100,
        reasoning_tokens=50,
        completion_tokens=60,
    )
