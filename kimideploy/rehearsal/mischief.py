"""How the stand-in misbehaves when it is told to: one fault for each promise of an endpoint.

A fault in the request, in the reply, or (the server's) in the way it is sent. Each is of a kind
that was seen between models and their users, so that what looks for it can be tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kimideploy.rehearsal.types import Mind, Reply

#: way → what it does
WAYS = {
    "sick": "/health answers 500",
    "other-name": "/v1/models names another model",
    "open": "answers without a key",
    "echo-key": "repeats the key in its refusals",
    "drop-reasoning": "answers without the reasoning",
    "rename-reasoning": "sends it in the other field",
    "leak-think": "leaves </think> in content",
    "leak-call": "leaves tool calls in content",
    "wrong-sums": "miscalculates",
    "stream-differs": "drops the reasoning when it streams",
    "no-calls": "never calls a tool",
    "own-ids": "makes ids of its own",
    "bad-arguments": "breaks the JSON of arguments",
    "lose-fragments": "loses every second fragment of a streamed call",
    "loose-arguments": "turns all values of arguments into text",
    "one-call": "keeps one of several calls",
    "cut-dashes": "cuts names of tools at a dash",
    "call-anyway": "calls a tool though tool_choice is none",
    "ignore-required": "answers in words though a call is required",
    "ignore-name": "calls another tool than the named one",
    "drop-history": "drops the reasoning of the history",
    "forget": "does not use the reasoning of the history",
    "forget-turns": "does not use the reasoning of finished turns",
    "wrong-finish": "always finishes with stop",
    "hide-tools": "does not show tools to the model",
    "ignore-max": "ignores max_tokens",
    "ignore-stop": "ignores stop",
    "blind": "takes pictures and does not look",
    "cut-prompts": "cuts a prompt that is too long",
    "greedy": "answers equal questions equally",
    "garble": "repeats words wrongly",
    "mix-up": "answers with the words of another conversation",
    "bangs": "says !!!! only",
    "hold-stream": "holds a stream back until it is over",
    "cut-stream": "ends streams in the middle",
    "error-500": "answers chats with 500",
    "redirect": "answers chats with a redirect",
    "no-usage": "counts no tokens",
}
_FIELDS = ("reasoning", "reasoning_content")
_WORD = re.compile(r"^[a-z]+-[a-z]+$")


def heard(body: Mapping[str, Any], mind: Mind) -> dict[str, Any]:
    """Return the request *body* as a stand-in with the faults of *mind* takes it."""
    ways, taken = mind.mischief, dict(body)
    if "drop-history" in ways:
        taken["messages"] = [_bare(one) for one in body["messages"]]
    if "ignore-required" in ways and body.get("tool_choice") == "required":
        taken["tool_choice"] = "none"
    if "ignore-name" in ways and isinstance(body.get("tool_choice"), dict):
        taken["tool_choice"] = "required"
    if "call-anyway" in ways and body.get("tool_choice") == "none":
        taken["tool_choice"] = "required"
    if "no-calls" in ways and taken.get("tools"):
        taken["tool_choice"] = "none"
    if "ignore-max" in ways:
        taken = {k: v for k, v in taken.items() if not k.startswith("max_")}
    if "ignore-stop" in ways:
        taken.pop("stop", None)
    if "blind" in ways:
        taken["messages"] = [_unseen(one) for one in taken["messages"]]
    return taken


def remembered(messages: list[Mapping[str, Any]], mind: Mind) -> list[Mapping[str, Any]]:
    """Return the history as the model uses it, which may be less than what was counted."""
    if "forget" in mind.mischief:
        return [_bare(one) for one in messages]
    if "forget-turns" in mind.mischief:
        users = [n for n, one in enumerate(messages) if one.get("role") == "user"]
        begin = users[-1] if users else 0
        return [_bare(one) if n < begin else one for n, one in enumerate(messages)]
    return messages


def told(reply: Reply, body: Mapping[str, Any], mind: Mind) -> Reply:  # noqa: C901  one a line
    """Return *reply* with the faults of *mind*."""
    ways, content, calls = mind.mischief, reply.content, reply.calls
    streamed = body.get("stream") is True
    if "wrong-sums" in ways and content is not None and content.isdecimal():
        content = str(int(content) + 1)
    if "garble" in ways and content is not None and _WORD.match(content):
        content = content[::-1]
    if "bangs" in ways and content is not None:
        content = "!" * 200
    if "leak-call" in ways and calls:
        content, calls = raw(calls[0].id, calls[0].arguments), ()
    if "own-ids" in ways:
        calls = tuple(replace(one, id=f"call_{n:08x}") for n, one in enumerate(calls))
    if "bad-arguments" in ways:
        calls = tuple(replace(one, arguments=one.arguments[:-1]) for one in calls)
    if "loose-arguments" in ways:
        calls = tuple(replace(one, arguments=_loose(one.arguments)) for one in calls)
    if "one-call" in ways:
        calls = calls[:1]
    if "cut-dashes" in ways:
        calls = tuple(replace(one, name=one.name.partition("-")[0]) for one in calls)
    if "lose-fragments" in ways and streamed:
        calls = tuple(replace(one, arguments=_half(one.arguments)) for one in calls)
    hidden = "drop-reasoning" in ways or ("stream-differs" in ways and streamed)
    return replace(
        reply,
        content=content,
        calls=calls,
        shown=reply.shown and not hidden,
        split=reply.split and "leak-think" not in ways,
        finish="stop" if "wrong-finish" in ways else reply.finish,
        finish_whole=None if "wrong-finish" in ways else reply.finish_whole,
    )


def raw(call_id: str, given: str) -> str:
    """Return the model's own words for a call, which stay in content where no parser reads them."""
    return (
        f"<|tool_calls_section_begin|><|tool_call_begin|>{call_id}"
        f"<|tool_call_argument_begin|>{given}<|tool_call_end|><|tool_calls_section_end|>"
    )


def is_word(content: str | None) -> bool:
    """Return whether *content* is a code word."""
    return content is not None and _WORD.match(content) is not None


def _bare(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in _FIELDS}


def _unseen(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [one for one in content if one.get("type") == "text"]}


def _loose(given: str) -> str:
    values = json.loads(given)
    return json.dumps({name: str(value) for name, value in values.items()})


def _half(given: str) -> str:
    return "".join(given[start : start + 12] for start in range(0, len(given), 24))
