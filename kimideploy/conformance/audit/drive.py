"""A client of our own: it leads a tool loop through a proxy, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kimideploy.conformance.answers import Message, joined, line, whole
from kimideploy.conformance.asks import CHAT
from kimideploy.conformance.audit.compare import Step
from kimideploy.conformance.audit.report import Fate
from kimideploy.conformance.client import Client, Reply, Unreachable
from kimideploy.conformance.promise import FIELDS

_TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run a Python program.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}, "note": {"type": "string"}},
            "required": ["code"],
        },
    },
}
#: what is said beside the messages, to be seen at the other end; the last one no API knows
_BESIDE = {
    "temperature": 1.0,
    "top_p": 0.95,
    "max_tokens": 32_768,
    "seed": 7,
    "stop": ["<stop>"],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "chat_template_kwargs": {"thinking": True},
    "top_k": 40,
    "x_kimideploy": "as it was sent",
}
_SYSTEM = "You are a careful engineer.\nAnswer in one word."
_PATIENCE = 120.0
#: signs of a refusal that are told
_SAID = 300


@dataclass(frozen=True, slots=True)
class Drive:
    """What one loop sent, and what came back."""

    sent: tuple[dict[str, Any], ...]
    messages: tuple[Message, ...]
    #: events of each streamed answer
    pieces: tuple[int, ...] = ()
    #: how the loop ended before its end
    error: str | None = None


def drive(client: Client, model: str, *, streamed: bool, steps: int) -> Drive:
    """Return one loop of at most *steps* requests; it keeps whatever reasoning it gets."""
    history: list[dict[str, Any]] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": "Compute something.", "x_kimideploy": "of a message"},
    ]
    sent: list[dict[str, Any]] = []
    messages: list[Message] = []
    pieces: list[int] = []
    for _ in range(steps):
        body = {"model": model, "messages": list(history), "tools": [_TOOL], **_BESIDE}
        if streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        sent.append(body)
        try:
            found, count = _asked(client, body, streamed=streamed)
        except Unreachable as error:
            said = client.masked(str(error))
            return Drive(tuple(sent), tuple(messages), tuple(pieces), said)
        messages.append(found)
        pieces.append(count)
        history += _next(found)
        if not found.calls:
            break
    return Drive(tuple(sent), tuple(messages), tuple(pieces))


def _asked(client: Client, body: dict[str, Any], *, streamed: bool) -> tuple[Message, int]:
    if not streamed:
        reply = client.post(CHAT, body, timeout=_PATIENCE)
        return _message(client, reply, whole(reply.json())), 1
    events: list[Any] = []
    for piece in client.stream(CHAT, body, timeout=_PATIENCE, deadline=_PATIENCE):
        if isinstance(piece, Reply):
            return _message(client, piece, None), 1
        events.append(piece)
    found = joined(events)
    if found is None:
        raise Unreachable("the stream held no message")
    return found, len(events)


def _message(client: Client, reply: Reply, found: Message | None) -> Message:
    if reply.status != 200 or found is None:  # noqa: PLR2004
        said = client.masked(reply.body.decode("utf-8", "replace"))
        raise Unreachable(f"status {reply.status}: {line(said, _SAID)}")
    return found


def _next(message: Message) -> Iterator[dict[str, Any]]:
    """The answer as a client that keeps everything sends it back, and the results of its calls."""
    answer: dict[str, Any] = {"role": "assistant", "content": message.content}
    answer |= {field: text for field, text in message.reasoning.items() if text}
    if message.calls:
        answer["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    yield answer
    for call in message.calls:
        yield {"role": "tool", "tool_call_id": call.id, "content": "1"}


def answers(found: Drive, steps: tuple[Step, ...], *, streamed: bool) -> Iterator[Fate]:
    """Yield what became of the upstream's answers on their way back."""
    way = "streamed" if streamed else "whole"
    for message, step in zip(found.messages, steps, strict=False):
        fields = [f for f in FIELDS if message.reasoning.get(f) == step.reasoning]
        where = f"{way}: in message.{' and message.'.join(fields)}"
        if "reasoning" in fields:
            fate = Fate("reasoning", "kept", where, "answer")
        elif fields:
            fate = Fate("reasoning", "renamed", where, "answer")
        elif message.thought:
            said = f"{way}: {len(message.thought)} of {len(step.reasoning)} characters"
            fate = Fate("reasoning", "changed", said, "answer", breaks=True)
        else:
            fate = Fate("reasoning", "dropped", f"{way}: no field has it", "answer", breaks=True)
        yield fate
        yield from _calls(message, step, way)


def _calls(message: Message, step: Step, way: str) -> Iterator[Fate]:
    calls = tuple((call.id, call.name, call.arguments) for call in message.calls)
    if not step.calls:
        return
    if calls == step.calls:
        yield Fate("tool calls", "kept", f"{way}: ids, names, arguments", "answer")
    elif [one[1:] for one in calls] == [one[1:] for one in step.calls]:
        said = f"{way}: {step.calls[0][0]} became {calls[0][0]}"
        yield Fate("tool calls", "changed", said, "answer", breaks=True)
    else:
        said = f"{way}: {len(calls)} of {len(step.calls)} calls came as they were"
        yield Fate("tool calls", "changed", said, "answer", breaks=True)


def stream_fate(pieces: tuple[int, ...], sent: tuple[int, ...]) -> Fate | None:
    """Return what became of the pieces of the streams, None where there were none."""
    came, gone = sum(pieces), sum(sent)
    if not came or not gone:
        return None
    if came * 2 < gone:
        return Fate("stream", "merged", f"{gone} events were sent, {came} came", "answer")
    return Fate("stream", "kept", f"{gone} events were sent, {came} came", "answer")
