"""The reasoning: that it comes, in its own field, whole and streamed, and nothing leaks."""

from __future__ import annotations

import re

from kimideploy.conformance.answers import Message, quote
from kimideploy.conformance.asks import PRODUCT
from kimideploy.conformance.promise import FIELDS
from kimideploy.conformance.rules.base import (
    REASONING_FLAG,
    Finding,
    Heard,
    Rule,
    broken,
    kept,
    no_thoughts,
)

_THINK = re.compile(r"</?think>")
_MARKS = re.compile(r"<\|(tool_calls?_|im_)|\[(BOS|EOS)\]")
_BOTH = ("question", "question streamed")


def _reasoning(heard: Heard) -> Finding:
    message, field = heard.message("question streamed"), heard.own_field
    if message.reasoning.get(field, "").strip():
        return kept(f"{len(message.reasoning[field])} characters in message.{field}")
    other = next((name for name in FIELDS if name != field and message.reasoning.get(name)), None)
    if other is not None:
        return broken(
            f"it came in message.{other}, clients of this engine read message.{field}",
            cause="another version of the engine than its profile describes, or a proxy renames",
            fix="install the version the plan pins, or ask the engine directly",
        )
    if message.finish == "length" and not message.content:
        return broken("the answer was cut off before anything came")
    return broken(
        f"neither message.{FIELDS[0]} nor message.{FIELDS[1]} holds any;"
        f" content begins {quote(message.content)}",
        cause="the reasoning parser is not set or does not fit the model"
        if _THINK.search(message.content)
        else "the reasoning parser is not set, or something between drops the field",
        fix=f"{REASONING_FLAG}; then `kimideploy audit` shows what a proxy drops",
    )


def _clean(heard: Heard) -> Finding:
    for name, message in heard.messages():
        found = _THINK.search(message.content)
        if found is not None:
            return broken(
                f"{name}: message.content holds {found[0]}: {quote(message.content)}",
                cause="the reasoning parser is not set or does not fit: thoughts came as answer",
                fix=REASONING_FLAG,
            )
    heard.message("question")
    return kept("no <think> in any content")


def _no_marks(heard: Heard) -> Finding:
    for name, message in heard.messages():
        for field, text in (("content", message.content), *message.reasoning.items()):
            found = _MARKS.search(text)
            if found is not None:
                return broken(
                    f"{name}: message.{field} holds {found[0]}…: {quote(text)}",
                    cause="the tool parser is not set, does not fit, or missed a call",
                    fix="--tool-call-parser kimi_k2, in a version with the fixes",
                    link="https://github.com/vllm-project/vllm/pull/33646",
                )
    heard.message("question")
    return kept("none of the model's own marks in content or reasoning")


def _right(heard: Heard) -> Finding:
    message = heard.message("question streamed")
    if PRODUCT in message.content:
        return kept(f"17 × 23 = {quote(message.content.strip())}")
    if message.finish == "length":
        return broken(
            f"thinking took all {heard.promise.max_tokens} tokens",
            cause="the model does not come to an end: wrong sampling, or numbers go wrong",
            fix="check the temperature and top_p the engine applies",
        )
    return broken(
        f"17 × 23 was answered with {quote(message.content)}",
        cause="numbers go wrong on this hardware: a kernel, a quantisation or the KV cache",
        fix="the plan's warnings name known cases; another engine or version",
    )


def _alike(heard: Heard) -> Finding:
    message, streamed = heard.message("question"), heard.message("question streamed")
    for what, one, other in _shapes(message, streamed):
        # Why: who counts no tokens in a stream breaks no promise.
        uncounted = what == "prompt_tokens" and None in (one, other)
        if one != other and not uncounted:
            return broken(
                f"{what}: {one} whole, {other} streamed",
                cause="the engine parses whole and streamed answers by different code, or a proxy"
                " rebuilds one of them",
                fix="a newer version of the engine, or no proxy between",
            )
    return kept("the same fields, finish and count of prompt tokens; [DONE] came")


def _shapes(message: Message, streamed: Message) -> list[tuple[str, object, object]]:
    def fields(one: Message) -> str:
        return " and ".join(f for f, text in one.reasoning.items() if text) or "none"

    return [
        ("field of the reasoning", fields(message), fields(streamed)),
        ("has content", bool(message.content), bool(streamed.content)),
        ("finish_reason", message.finish, streamed.finish),
        ("prompt_tokens", message.prompt_tokens, streamed.prompt_tokens),
    ]


RULES = (
    Rule("reasoning", _reasoning, ("question streamed",), quick=True, spare=no_thoughts),
    Rule("content is clean", _clean, _BOTH, quick=True),
    Rule("nothing leaked", _no_marks, _BOTH, quick=True),
    Rule("the answer is right", _right, ("question streamed",), quick=True),
    Rule("streamed like whole", _alike, _BOTH, quick=True),
)
