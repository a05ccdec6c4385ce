"""What was sent against what arrived, field by field. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimideploy.conformance.answers import quote
from kimideploy.conformance.audit.report import Fate, What
from kimideploy.conformance.promise import FIELDS

Message = Mapping[str, Any]
#: fields of a message that the comparisons below speak of
_KNOWN = {"role", "content", "tool_calls", "tool_call_id", "name", *FIELDS}
#: what a client may say more than once in other words
_TWINS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


@dataclass(frozen=True, slots=True)
class Step:
    """What the upstream answered at a step of the loop."""

    reasoning: str
    content: str | None
    calls: tuple[tuple[str, str, str], ...]  # id, name, arguments


def history(bodies: Sequence[Mapping[str, Any]], steps: Sequence[Step]) -> tuple[Fate, ...]:
    """Return what became of the answers to *steps* in the histories of *bodies*.

    The worst fate of a field is told; a field that always came as it was sent is kept.
    """
    found: dict[str, Fate] = {}
    for body in bodies:
        for fate in _of(body, steps):
            old = found.get(fate.field)
            if old is None or (old.what == "kept" and fate.what != "kept"):
                found[fate.field] = fate
    for fate in _system(bodies):
        found.setdefault(fate.field, fate)
    return tuple(found.values())


def _messages(body: Mapping[str, Any]) -> list[Message]:
    messages = body.get("messages")
    found = messages if isinstance(messages, list) else ()
    return [one for one in found if isinstance(one, Mapping)]


def _of(body: Mapping[str, Any], steps: Sequence[Step]) -> Iterator[Fate]:
    """The fates in one request: from each question on the loop begins anew."""
    messages = _messages(body)
    begins = [number for number, one in enumerate(messages) if one.get("role") == "user"]
    for begin, end in zip(begins, [*begins[1:], len(messages)], strict=True):
        yield from _answers(messages[begin:end], steps)


def _answers(messages: Sequence[Message], steps: Sequence[Step]) -> Iterator[Fate]:
    answers = [m for m in messages if m.get("role") == "assistant" and m.get("tool_calls")]
    if not answers:
        # Why: a framework may tell the calls in words, and then nothing is left of them.
        lost = any(m.get("role") == "tool" for m in messages)
        if lost:
            yield Fate(
                "tool_calls", "dropped", "tools have answered calls nobody made", breaks=True
            )
        return
    for message, step in zip(answers, steps, strict=False):
        yield _reasoning(message, step)
        yield _content(message, step)
        yield from _calls(message, messages, step)


def _reasoning(message: Message, step: Step) -> Fate:
    name = "reasoning"
    given = {field: message[field] for field in FIELDS if isinstance(message.get(field), str)}
    whole = next((field for field, text in given.items() if text == step.reasoning), None)
    if whole == "reasoning":
        return Fate(name, "kept", "in message.reasoning, as it was sent")
    if whole is not None:
        return Fate(
            name, "renamed", f"it came back in message.{whole}, which not every engine reads"
        )
    elsewhere = _found(message, step.reasoning)
    if elsewhere is not None:
        return Fate(name, "moved", f"it came back in {elsewhere}", breaks=True)
    for field, text in given.items():
        what: What = "truncated" if text and step.reasoning.startswith(text) else "changed"
        stripped = text.strip() == step.reasoning.strip()
        if stripped:
            return Fate(name, "changed", f"blanks at the ends of message.{field} are gone")
        sizes = f"{len(text)} of {len(step.reasoning)} characters in message.{field}"
        return Fate(name, what, sizes, breaks=True)
    return Fate(name, "dropped", "no field of the answer's message has it", breaks=True)


def _found(value: Any, text: str, path: str = "message") -> str | None:
    """Where in *value* the text is, in any field that is no field for it."""
    needle = text.strip()
    if isinstance(value, str):
        return path if needle and needle in value else None
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        if key in FIELDS:
            continue
        at = _found(inner, text, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}")
        if at is not None:
            return at
    return None


def _content(message: Message, step: Step) -> Fate:
    text = _text(message.get("content"))
    if text == (step.content or ""):
        return Fate("content", "kept", "beside the calls, as it was sent")
    if not text:
        return Fate("content", "dropped", f"beside the calls stood {quote(step.content)}")
    return Fate("content", "changed", f"{quote(step.content)} came back as {quote(text)}")


def _calls(message: Message, messages: Sequence[Message], step: Step) -> Iterator[Fate]:
    given = message["tool_calls"]
    calls = [call for call in given if isinstance(call, Mapping)] if isinstance(given, list) else []
    if len(calls) != len(step.calls):
        yield Fate("tool_calls", "dropped", f"{len(calls)} of {len(step.calls)} calls", breaks=True)
        return
    yield Fate("tool_calls", "kept", "all of them, in order")
    ids = [str(call.get("id")) for call in calls]
    own = [call_id for call_id, _, _ in step.calls]
    if ids == own:
        yield Fate("tool ids", "kept", f"{own[0]} and the like")
    else:
        said = f"{own[0]} came back as {ids[0]}; the model was trained on its own ids"
        yield Fate("tool ids", "changed", said, breaks=True)
    yield _arguments(calls, step)
    results = {str(one.get("tool_call_id")) for one in messages if one.get("role") == "tool"}
    missing = [one for one in ids if one not in results]
    if missing:
        said = f"no result names {missing[0]}"
        yield Fate("tool results", "changed", said, breaks=True)
    else:
        yield Fate("tool results", "kept", "each names its call")


def _arguments(calls: Sequence[Message], step: Step) -> Fate:
    for call, (_, name, arguments) in zip(calls, step.calls, strict=True):
        function = call.get("function")
        given = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(function, Mapping) and function.get("name") != name:
            said = f"{name} came back as {quote(function.get('name'))}"
            return Fate("arguments", "changed", said, breaks=True)
        if given == arguments:
            continue
        if _json(given) == _json(arguments):
            return Fate("arguments", "changed", "the same JSON, written anew: the cache misses")
        return Fate("arguments", "changed", f"came back as {quote(given)}", breaks=True)
    return Fate("arguments", "kept", "byte for byte")


def _json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _system(bodies: Sequence[Mapping[str, Any]]) -> Iterator[Fate]:
    firsts = []
    for body in bodies:
        roles = [one.get("role") for one in _messages(body)]
        firsts.append(roles[0] if roles else None)
        later = [role for role in roles[1:] if role in ("system", "developer")]
        if later:
            yield Fate("system prompt", "moved", f"a {later[0]} message stands inside the history")
            return
    if "system" in firsts and set(firsts) != {"system"}:
        yield Fate("system prompt", "dropped", "some requests have none", breaks=True)
    elif "developer" in firsts:
        yield Fate("system prompt", "renamed", "it arrives with the role developer", breaks=True)
    elif "system" in firsts:
        yield Fate("system prompt", "kept", "first in every request")


def request(sent: Mapping[str, Any], arrived: Mapping[str, Any]) -> Iterator[Fate]:
    """Yield what became of the fields of a request on its way, those of its messages aside."""
    for name, value in sent.items():
        if name in ("messages", "model"):
            continue
        if name in arrived and arrived[name] == value:
            yield Fate(name, "kept", "as it was sent", "request")
        elif _TWINS.get(name) in arrived:
            yield Fate(name, "renamed", f"it arrives as {_TWINS[name]}", "request")
        elif name not in arrived:
            yield Fate(name, "dropped", f"{quote(value)} does not arrive", "request")
        else:
            said = f"{quote(value)} arrives as {quote(arrived[name])}"
            yield Fate(name, "changed", said, "request")
    for name, value in arrived.items():
        if name not in sent and _TWINS.get(name) not in sent:
            yield Fate(name, "added", f"with {quote(value)}", "request")


def unknown(messages: Sequence[Message], arrived: Sequence[Message]) -> Iterator[Fate]:
    """Yield what became of fields of messages that no API knows."""
    for one, other in zip(messages, arrived, strict=False):
        for name in one:
            if name not in _KNOWN:
                what: What = "kept" if other.get(name) == one[name] else "dropped"
                yield Fate(f"message.{name}", what, "a field of a message", "request")
                return


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
