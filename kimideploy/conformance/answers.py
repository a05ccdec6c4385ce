"""Answers as they came, and the messages in them. Pure; whatever an endpoint sends is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kimideploy.conformance.promise import FIELDS, Field
from kimideploy.facts.types import Strict

_OK = 200
_ELSE = (401, 403, 408, 429)
#: signs of an id, a name or a finish that are read
_WORD = 200


class Answer(Strict, frozen=True, omit_defaults=True):
    """What one request brought. Times are seconds since it was sent.

    Of a stream `events` are its events and `first` is when the first text came; `error` says how a
    connection failed.
    """

    status: int | None = None
    body: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    events: tuple[Any, ...] | None = None
    first: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it came whole, and is no refusal."""
        return self.error is None and self.status == _OK

    @property
    def refused(self) -> bool:
        """Whether the request itself was refused, as one that is wrong is."""
        status = self.status if self.error is None else None
        # Why not these: a key, a limit or a wait is asked for, whatever the request is.
        return status is not None and 400 <= status < 500 and status not in _ELSE  # noqa: PLR2004

    def json(self) -> Any:
        """Return the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> Message | None:
        """The message it holds, joined from its events if it is a stream; None if there is none."""
        if self.events is not None:
            return joined(self.events)
        return whole(self.json())

    @property
    def said(self) -> str:
        """The answer in one line, for people: what was refused or said, shortened."""
        if self.error is not None:
            return self.error
        message = self.message if self.ok else None
        if message is None:
            said = self.body if self.events is None else json.dumps(self.events[-1:])
            return f"status {self.status}: {quote(said)}"
        parts = [f"{f}={quote(t)}" for f, t in message.reasoning.items() if t]
        parts += [f"content={quote(message.content)}"] if message.content else []
        parts += [f"{call.name}({quote(call.arguments)}) id={call.id}" for call in message.calls]
        return f"{', '.join(parts) or 'nothing'}; finish_reason={message.finish}"


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as it came; what is missing or no text is None."""

    id: str | None
    name: str | None
    arguments: str | None

    def value(self) -> Any:
        """Return the arguments as JSON, None if they are none."""
        try:
            return json.loads(self.arguments) if self.arguments is not None else None
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Message:
    """What the model said. `flaw` is what was wrong with the fragments of a stream."""

    reasoning: Mapping[Field, str]
    content: str
    calls: tuple[Call, ...]
    finish: str | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    flaw: str | None = None

    @property
    def thought(self) -> str:
        """The reasoning, in whichever field it came."""
        return next((text for text in self.reasoning.values() if text), "")

    @property
    def text(self) -> str:
        """All that was said."""
        return "\n".join([*self.reasoning.values(), self.content])


def whole(body: object) -> Message | None:
    """Return the message of an answer that was sent whole, None if there is none."""
    choice = _choice(body)
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, Mapping):
        return None
    calls = message.get("tool_calls")
    found = tuple(_call(one) for one in calls) if isinstance(calls, list) else ()
    return Message(
        {field: _text(message.get(field)) for field in FIELDS if field in message},
        _text(message.get("content")),
        found,
        _name(choice.get("finish_reason")),
        *_usage(body),
    )


def joined(events: Iterable[object]) -> Message | None:
    """Return the message that the *events* of a stream make, None if they make none."""
    texts: dict[str, list[str]] = {}
    calls: dict[int, dict[str, Any]] = {}
    finish, flaw, seen = None, None, False
    used: tuple[int | None, int | None] = (None, None)
    for event in events:
        given = _usage(event)
        used = given if given != (None, None) else used
        choice = _choice(event)
        if choice is None:
            continue
        seen = True
        finish = _name(choice.get("finish_reason")) or finish
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            continue
        for name in ("content", *FIELDS):
            if name in delta:
                texts.setdefault(name, []).append(_text(delta[name]))
        parts = delta.get("tool_calls")
        for part in parts if isinstance(parts, list) else ():
            flaw = _fragment(part, calls) or flaw
    if not seen:
        return None
    made = tuple(Call(c.get("id"), c.get("name"), "".join(c["arguments"])) for c in calls.values())
    reasoning: dict[Field, str] = {f: "".join(texts[f]) for f in FIELDS if f in texts}
    return Message(reasoning, "".join(texts.get("content", [])), made, finish, *used, flaw)


def _fragment(part: object, calls: dict[int, dict[str, Any]]) -> str | None:
    """Add a fragment to its call; return what is wrong with it."""
    index = part.get("index") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(index, int):
        return "a fragment of a tool call has no index"
    call = calls.setdefault(index, {"arguments": []})
    function = part.get("function")
    given = {"id": part.get("id")}
    if isinstance(function, Mapping):
        given["name"] = function.get("name")
        call["arguments"].append(_text(function.get("arguments")))
    flaw = None
    for key, value in given.items():
        value = _name(value)  # noqa: PLW2901  as it is read everywhere
        if value:
            flaw = f"the {key} of call {index} changes" if call.get(key, value) != value else flaw
            call.setdefault(key, value)
    return flaw


def _call(value: object) -> Call:
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(function, Mapping):
        return Call(None, None, None)
    given = function.get("arguments")
    arguments = _text(given) if isinstance(given, str) else None
    return Call(_name(value.get("id")), _name(function.get("name")), arguments)


def _choice(body: object) -> Mapping[str, Any] | None:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _usage(body: object) -> tuple[int | None, int | None]:
    usage = body.get("usage") if isinstance(body, Mapping) else None
    said = usage if isinstance(usage, Mapping) else {}
    counts = [said.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = [one if type(one) is int else None for one in counts]
    return prompt, completion


def _text(value: object) -> str:
    """Text, also of a content that comes in parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, Mapping))
    # Why: JSON can spell half a letter, which nothing can write down again.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _name(value: object) -> str | None:
    return line(_text(value), _WORD) if isinstance(value, str) else None


def quote(value: object, most: int = 80) -> str:
    """Return the beginning of *value* in quotes, as `line` does."""
    return repr(line(value if isinstance(value, str) else json.dumps(value, default=str), most))


def line(text: str, most: int) -> str:
    """Return the beginning of *text* as one line that steers no terminal."""
    text = " ".join(text[: most * 8].split())
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= most else text[: most - 1] + "…"
