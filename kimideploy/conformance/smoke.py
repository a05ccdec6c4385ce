"""Two smoke requests: what is asked, and what the answers must keep. Pure.

A question must come back with the reasoning in the engine's own field; a task with one tool must
come back as a parsed call whose id the model knows from its training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kimideploy.conformance.verdict import Check

Message = Mapping[str, Any]
Subject = Literal["model", "stand-in", "random weights"]

#: Why so many: a forced-thinking model spends its tokens on thinking first, and an answer that is
#: cut off there says nothing about the parsers (https://docs.sglang.io cookbook, Kimi-K2.7-Code).
MAX_TOKENS = 4096
#: enough for fields and ids, where nobody reads the content
FEW_TOKENS = 256
TOOL = "run_python"
_KEY = "code"
_QUESTION = "What is 17 times 23? Answer with the number alone."
_ANSWER = "391"
_TASK = f"Let {TOOL} compute the sum of the first 1000 prime numbers; do not work it out yourself."
_THINK = re.compile(r"</?think>")
_RESIDUE = re.compile(r"<\|tool_calls?_")
_NOISE = "random weights may say anything"
_FIELDS = ("reasoning", "reasoning_content")


@dataclass(frozen=True, slots=True)
class Promise:
    """What an endpoint owes, for requests of up to `context` tokens.

    Of a stand-in and of random weights only fields and ids are judged, not the content. Random
    weights never call a tool by themselves: the request names it and switches thinking off, so
    that the engine's grammar makes the call in the model's own form.
    """

    model: str
    reasoning_field: Literal["reasoning", "reasoning_content"]
    thinks: bool
    calls_tools: bool
    #: e.g. functions.{name}:{index}
    tool_id: str
    context: int
    subject: Subject = "model"

    @property
    def max_tokens(self) -> int:
        """Tokens an answer may take; half of the context is the most an engine grants safely."""
        return min(FEW_TOKENS if self.is_random else MAX_TOKENS, self.context // 2)

    @property
    def is_random(self) -> bool:
        """Whether what the model says is noise."""
        return self.subject == "random weights"


def question(promise: Promise) -> dict[str, Any]:
    """Return the body of the first request; its answer is streamed."""
    return {
        "model": promise.model,
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": promise.max_tokens,
        "stream": True,
        **({"seed": 0} if promise.is_random else {}),
    }


def task(promise: Promise) -> dict[str, Any]:
    """Return the body of the second request: one tool, for the model to choose."""
    forced = {
        "tool_choice": {"type": "function", "function": {"name": TOOL}},
        "chat_template_kwargs": {"thinking": False},
        "seed": 0,
    }
    return {
        "model": promise.model,
        "messages": [{"role": "user", "content": _TASK}],
        "max_tokens": promise.max_tokens,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": TOOL,
                    "description": "Run a Python program and return what it prints.",
                    "parameters": {
                        "type": "object",
                        "properties": {_KEY: {"type": "string", "description": "the program"}},
                        "required": [_KEY],
                    },
                },
            }
        ],
        **(forced if promise.is_random else {"tool_choice": "auto"}),
    }


def message_of(body: object) -> Message | None:
    """Return the message of a whole answer with its finish_reason in it, None if there is none."""
    choice = _choice(body)
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, Mapping):
        return None
    return {**message, "finish_reason": choice.get("finish_reason")}


def joined(pieces: Iterable[object]) -> Message | None:
    """Return the message that the *pieces* of a stream make, None if they make none."""
    message: dict[str, Any] = {}
    for piece in pieces:
        choice = _choice(piece)
        if choice is None:
            continue
        delta = choice.get("delta")
        for name in ("content", *_FIELDS):
            text = delta.get(name) if isinstance(delta, Mapping) else None
            if isinstance(text, str):
                message[name] = message.get(name, "") + text
        if choice.get("finish_reason") is not None:
            message["finish_reason"] = choice["finish_reason"]
    return message or None


def judge_answer(message: Message, promise: Promise) -> tuple[Check, ...]:
    """Return the checks of the first request's answer."""
    return (_reasoning(message, promise), _no_think(message, promise), _sense(message, promise))


def judge_call(message: Message, promise: Promise) -> tuple[Check, ...]:
    """Return the checks of the second request's answer."""
    if not promise.calls_tools:
        return (_na("tool call", "the model has no tool parser"),)
    residue = _no_residue(message, promise)
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and calls else None
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return (_no_call(message), residue)
    function = call["function"]
    return (
        Check("tool call", "pass", f"{function.get('name')}() came back parsed")
        if function.get("name") == TOOL
        else Check(
            "tool call",
            "fail",
            f"asked for {TOOL}, the call names {_quote(function.get('name'))}",
            cause="the tool parser cut the call at the wrong place",
        ),
        _id(call.get("id"), promise),
        _arguments(function.get("arguments"), promise),
        residue,
    )


def refused(request: str, status: int, body: bytes) -> Check:
    """Return the failed check of a request that was answered with an error."""
    said = body.decode("utf-8", "replace")
    auto = "tool choice" in said and "enable-auto-tool-choice" in said
    return Check(
        request,
        "fail",
        f"status {status}: {_quote(said)}",
        cause="the engine runs without --enable-auto-tool-choice" if auto else None,
        fix="start it with the command of the plan" if auto else None,
    )


# --- one promise each --------------------------------------------------------------------


def _reasoning(message: Message, promise: Promise) -> Check:
    name, field = "reasoning", promise.reasoning_field
    if not promise.thinks:
        return _na(name, "the model does not think")
    text = message.get(field)
    if isinstance(text, str) and text.strip():
        return Check(name, "pass", f"{len(text)} characters in message.{field}")
    other = next((f for f in _FIELDS if f != field and message.get(f)), None)
    if other is not None:
        return Check(
            name,
            "fail",
            f"it came in message.{other}, clients of this engine read message.{field}",
            cause="another version of the engine than its profile describes",
            fix="install the version the plan pins",
        )
    return Check(
        name,
        "fail",
        f"message.{field} is {'empty' if field in message else 'not there'};"
        f" content begins {_quote(message.get('content'))}",
        cause="the reasoning parser is not set, or does not fit the model",
        fix="--reasoning-parser kimi_k2, in a version that knows it",
    )


def _no_think(message: Message, promise: Promise) -> Check:
    name, content = "content is clean", message.get("content") or ""
    if promise.is_random:
        return _na(name, _NOISE)
    found = _THINK.search(content) if isinstance(content, str) else None
    if found is None:
        return Check(name, "pass", "no <think> in message.content")
    return Check(
        name,
        "fail",
        f"message.content holds {found[0]}: {_quote(content)}",
        cause="the thoughts were not separated from the answer",
        fix="--reasoning-parser kimi_k2, in a version that knows it",
    )


def _sense(message: Message, promise: Promise) -> Check:
    name, content = "the answer is right", message.get("content")
    if promise.subject != "model":
        return _na(name, "in a rehearsal only fields and ids are judged")
    if isinstance(content, str) and _ANSWER in content:
        return Check(name, "pass", f"17 × 23 = {_quote(content.strip())}")
    if message.get("finish_reason") == "length":
        return Check(
            name,
            "fail",
            f"thinking took all {promise.max_tokens} tokens",
            cause="the model does not come to an end: wrong sampling, or numbers go wrong",
            fix="check the temperature and top_p the engine applies",
        )
    return Check(
        name,
        "fail",
        f"17 × 23 was answered with {_quote(content)}",
        cause="numbers go wrong on this hardware: a kernel, a quantisation or the KV cache",
        fix="the plan's warnings name known cases; another engine or version",
    )


def _no_call(message: Message) -> Check:
    content = message.get("content")
    if message.get("finish_reason") == "length":
        cause: str | None = "the answer was cut off before the call"
    elif isinstance(content, str) and _RESIDUE.search(content):
        cause = "the tool parser is not set, or does not fit the model"
    else:
        cause = "the model was not shown the tool, or did not take it"
    return Check(
        "tool call",
        "fail",
        f"message.tool_calls is empty; content begins {_quote(content)}",
        cause=cause,
        fix="--tool-call-parser kimi_k2, with --enable-auto-tool-choice on vLLM",
    )


def _id(found: object, promise: Promise) -> Check:
    name = "tool id"
    shape = re.escape(promise.tool_id)
    shape = shape.replace(re.escape("{name}"), r"[\w-]+").replace(re.escape("{index}"), r"\d+")
    if isinstance(found, str) and re.fullmatch(shape, found):
        return Check(name, "pass", found)
    return Check(
        name,
        "fail",
        f"{_quote(found)} is not of the form {promise.tool_id}",
        cause="the engine makes ids of its own; in the history they lead the model to broken calls",
        fix="a version whose kimi_k2 tool parser keeps the model's ids",
    )


def _arguments(found: object, promise: Promise) -> Check:
    name = "tool arguments"
    try:
        value = json.loads(found) if isinstance(found, str) else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and isinstance(value.get(_KEY), str):
        return Check(name, "pass", f"JSON with the key {_KEY!r}")
    if promise.is_random:
        return _na(name, _NOISE)
    return Check(
        name,
        "fail",
        f"{_quote(found)} is no JSON object with the key {_KEY!r}",
        cause="the call was cut off, or the parser took the wrong part of it",
    )


def _no_residue(message: Message, promise: Promise) -> Check:
    name = "nothing leaked"
    if promise.is_random:
        return _na(name, _NOISE)
    for field in ("content", *_FIELDS):
        text = message.get(field)
        if isinstance(text, str) and _RESIDUE.search(text):
            return Check(
                name,
                "fail",
                f"message.{field} holds the model's own tool marks: {_quote(text)}",
                cause="the tool parser missed a call",
                fix="a version with the fixes of https://github.com/vllm-project/vllm/pull/33646",
            )
    return Check(name, "pass", "no <|tool_call in content or reasoning")


def _choice(body: object) -> Mapping[str, Any] | None:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _na(name: str, why: str) -> Check:
    return Check(name, "not-applicable", why)


def _quote(value: object) -> str:
    """The beginning of *value*, as one line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return repr(text if len(text) <= 80 else text[:79] + "…")  # noqa: PLR2004
