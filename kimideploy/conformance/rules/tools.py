"""Tool calls: parsed, with the model's own ids and valid arguments, one and several at once."""

from __future__ import annotations

import re
from typing import Any

from kimideploy.conformance.answers import Call, quote
from kimideploy.conformance.asks import BOOKING, LOOKUP, PRODUCT, PYTHON, WEATHER
from kimideploy.conformance.rules.base import (
    PARSERS,
    TOOL_FLAGS,
    Finding,
    Heard,
    Rule,
    broken,
    kept,
    no_tools,
    spared,
)
from kimideploy.conformance.schema import flaw

_RESIDUE = re.compile(r"<\|tool_calls?_")
_DASHES = "https://github.com/vllm-project/vllm/pull/22149"
#: request → the tools it offered
_OFFERED = {
    "call": PYTHON, "call streamed": PYTHON, "required": PYTHON, "named": WEATHER,
    "dashed": LOOKUP, "parallel": WEATHER, "parallel streamed": WEATHER, "schema": BOOKING,
}  # fmt: skip


def _name(tool: dict[str, Any]) -> str:
    return str(tool["function"]["name"])


def _first(heard: Heard, name: str) -> Call | Finding:
    """The first call that *name* brought, or the finding that there is none."""
    message = heard.message(name)
    if message.calls and message.calls[0].name is not None:
        return message.calls[0]
    if message.finish == "length":
        cause = "the answer was cut off before the call"
    elif _RESIDUE.search(message.text):
        cause = "the tool parser is not set, or does not fit the model"
    else:
        cause = "the model was not shown the tool, or did not take it"
    return broken(
        f"{name}: message.tool_calls is empty; content begins {quote(message.content)}",
        cause=cause,
        fix=TOOL_FLAGS,
    )


def _call(heard: Heard) -> Finding:
    call = _first(heard, "call")
    if isinstance(call, Finding):
        return call
    if call.name == _name(PYTHON):
        return kept(f"{call.name}() came back parsed")
    return broken(
        f"asked for {_name(PYTHON)}, the call names {quote(call.name)}",
        cause="the tool parser cut the call at the wrong place",
        fix=PARSERS,
    )


def _ids(heard: Heard) -> Finding:
    shape = re.escape(heard.promise.tool_id)
    shape = shape.replace(re.escape("{name}"), r"(?P<name>[\w.-]+)")
    shape = shape.replace(re.escape("{index}"), r"(?P<index>\d+)")
    seen: list[str] = []
    heard.message("call")
    for name in _OFFERED:
        message = heard.brought(name)
        for call in message.calls if message is not None else ():
            found = re.fullmatch(shape, call.id or "")
            if found is None or found.groupdict().get("name", call.name) != call.name:
                return broken(
                    f"{name}: {quote(call.id)} is not of the form {heard.promise.tool_id}",
                    cause="the engine or a proxy makes ids of its own; in the history they lead"
                    " the model to broken calls",
                    fix=f"{PARSERS}, or `kimideploy guard`, which gives them back their names",
                )
            seen.append(str(call.id))
    none = _first(heard, "call") if not seen else None
    if isinstance(none, Finding):
        return none
    return kept(", ".join(dict.fromkeys(seen)))


def _arguments(heard: Heard) -> Finding:
    return _held(
        heard,
        "call",
        PYTHON,
        good="JSON that fits the tool's schema",
        cause="the call was cut off, or the parser took the wrong part of it",
    )


def _fits(heard: Heard) -> Finding:
    return _held(
        heard,
        "schema",
        BOOKING,
        good="whole numbers, a choice, a list and a yes-or-no came as the schema says",
        cause="the model strays from the schema, or the parser turns values into text",
    )


def _held(heard: Heard, name: str, tool: dict[str, Any], *, good: str, cause: str) -> Finding:
    """Hold the arguments of a call against the schema of its tool."""
    call = _first(heard, name)
    if isinstance(call, Finding):
        return call
    wrong = flaw(call.arguments, tool["function"]["parameters"])
    if wrong is None:
        return kept(good)
    return broken(f"{quote(call.arguments)}: {wrong}", cause=cause, fix=PARSERS)


def _streamed(heard: Heard) -> Finding:
    call, message = _first(heard, "call streamed"), heard.message("call streamed")
    if isinstance(call, Finding):
        return call
    whole = _first(heard, "call")
    if message.flaw is not None:
        return broken(message.flaw, cause="fragments can't be put together", fix=PARSERS)
    if message.finish != "tool_calls":
        return broken(
            f"a streamed call finishes with {message.finish}, not tool_calls",
            cause="clients go by it, and never run the tool",
            fix=PARSERS,
        )
    if not isinstance(whole, Finding) and whole.name != call.name:
        return broken(f"{quote(whole.name)} whole, {quote(call.name)} streamed", fix=PARSERS)
    if not isinstance(call.value(), dict):
        return broken(
            f"the fragments make {quote(call.arguments)}",
            cause="pieces of the arguments are missing or doubled",
            fix=PARSERS,
        )
    return kept("its fragments make the call that came whole")


def _parallel(heard: Heard) -> Finding:
    for name in ("parallel", "parallel streamed"):
        message = heard.message(name)
        call = _first(heard, name)
        if isinstance(call, Finding):
            return call
        if message.flaw is not None:
            return broken(f"{name}: {message.flaw}", fix=PARSERS)
        ids = [one.id for one in message.calls]
        cities = {str(one.value().get("city")) for one in message.calls if _is_object(one)}
        if len(ids) < 2 or len(set(ids)) < len(ids):  # noqa: PLR2004  two were asked for
            return broken(
                f"{name}: asked for two calls, {len(ids)} came with ids {', '.join(map(str, ids))}",
                cause="the parser keeps one of several calls, or gives them one id",
                fix=PARSERS,
            )
        if not {"Oslo", "Bergen"} <= {city.split(",")[0] for city in cities}:
            told = quote(", ".join(sorted(cities)))
            return broken(f"{name}: the calls are for {told}", fix=PARSERS)
    return kept("two calls, two ids, whole and streamed")


def _is_object(call: Call) -> bool:
    return isinstance(call.value(), dict)


def _dashed(heard: Heard) -> Finding:
    call = _first(heard, "dashed")
    if isinstance(call, Finding):
        return Finding(call.outcome, call.evidence, call.cause, call.fix, _DASHES)
    if call.name == _name(LOOKUP):
        return kept(f"{call.name} is called by its name")
    return broken(
        f"asked for {_name(LOOKUP)}, the call names {quote(call.name)}",
        cause="the parser's pattern knows no dash",
        fix="a newer version of the engine",
        link=_DASHES,
    )


def _none(heard: Heard) -> Finding:
    message = heard.message("none")
    if message.calls:
        return broken(f"it called {quote(message.calls[0].name)} all the same")
    if PRODUCT in message.content:
        return kept("it answered in words")
    return broken(
        f"no call, but no answer either: {quote(message.content)}",
        cause="the model called all the same, and the call was thrown away",
    )


def _no_choice(heard: Heard, name: str) -> Finding | None:
    """Spare who says clearly that it takes no such choice, as some do while the model thinks."""
    answer = heard.answers[name]
    if answer.refused and "tool_choice" in answer.body:
        return spared(f"{name}: refused by name: {answer.said}")
    return None


def _required(heard: Heard) -> Finding:
    none = _no_choice(heard, "required")
    if none is not None:
        return none
    call = _first(heard, "required")
    if isinstance(call, Finding):
        return Finding(call.outcome, call.evidence, "tool_choice required is ignored", call.fix)
    return kept(f"{call.name}() was called where no call was needed")


def _named(heard: Heard) -> Finding:
    none = _no_choice(heard, "named")
    if none is not None:
        return none
    call = _first(heard, "named")
    if isinstance(call, Finding):
        return Finding(call.outcome, call.evidence, "a named tool_choice is ignored", call.fix)
    if call.name == _name(WEATHER):
        return kept(f"{call.name}() was called, as it was told")
    return broken(f"told to call {_name(WEATHER)}, it called {quote(call.name)}")


RULES = (
    Rule("tool call", _call, ("call",), quick=True, spare=no_tools),
    Rule("tool id", _ids, ("call",), quick=True, spare=no_tools),
    Rule("tool arguments", _arguments, ("call",), quick=True, spare=no_tools),
    Rule("tool call streamed", _streamed, ("call", "call streamed"), spare=no_tools),
    Rule("arguments fit a schema", _fits, ("schema",), spare=no_tools),
    Rule("parallel calls", _parallel, ("parallel", "parallel streamed"), spare=no_tools),
    Rule("names with a dash", _dashed, ("dashed",), spare=no_tools),
    Rule("tool_choice none", _none, ("none",), spare=no_tools),
    Rule("tool_choice required", _required, ("required",), spare=no_tools),
    Rule("tool_choice of a name", _named, ("named",), spare=no_tools),
)
