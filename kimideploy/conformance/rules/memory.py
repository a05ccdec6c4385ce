"""Whether the reasoning of earlier answers arrives, and is used."""

from __future__ import annotations

from kimideploy.conformance.answers import quote
from kimideploy.conformance.promise import FIELDS, Field, Promise
from kimideploy.conformance.rules.base import (
    Finding,
    Heard,
    Rule,
    broken,
    kept,
    no_thoughts,
    no_tools,
    spared,
)

#: the thought has some fifteen words; with half of them it can't have come whole
_LEAST = 8
_DROPS = "https://github.com/vllm-project/vllm/issues/38488"
_FIX = "send the reasoning in the field the engine reads; `kimideploy guard` maps both ways"


def _arrives(heard: Heard) -> Finding:
    heard.message(f"loop with {heard.own_field}")
    strict = heard.answers["loop without"]
    if strict.refused:
        return kept(f"history without reasoning is refused: {strict.said}")
    bare = _prompt(heard, "loop without")
    counts = {field: _prompt(heard, f"loop with {field}") for field in FIELDS}
    if bare is None or counts[heard.own_field] is None:
        return spared("the endpoint does not count prompt tokens")
    more = {field: count - bare for field, count in counts.items() if count is not None}
    told = ", ".join(f"{count:+} tokens with {field}" for field, count in more.items())
    if more[heard.own_field] >= _LEAST:
        return kept(f"the prompt has {told}")
    other = next((field for field in FIELDS if more.get(field, 0) >= _LEAST), None)
    return broken(
        f"the prompt has {told}",
        cause=f"message.{heard.own_field}, which carries the reasoning of answers, is dropped in"
        " the history" + (f"; message.{other} is read" if other else ""),
        fix=_FIX,
        link=_DROPS,
    )


def _prompt(heard: Heard, name: str) -> int | None:
    message = heard.brought(name)
    return message.prompt_tokens if message is not None else None


def _used(heard: Heard) -> Finding:
    return _recalled(heard, "loop")


def _kept(heard: Heard) -> Finding:
    return _recalled(heard, "turns")


def _recalled(heard: Heard, form: str) -> Finding:
    secret, field = heard.words.secret, heard.own_field
    bare = heard.answers[f"{form} without"]
    if bare.ok and secret in heard.message(f"{form} without").content:
        return broken(
            f"{quote(secret)} was told though this conversation never had it",
            cause="conversations are mixed up",
            fix="report it to whoever runs the endpoint: answers reach the wrong people",
        )
    if _tells(heard, form, field):
        lost = "is refused" if bare.refused else f"answers {quote(_content(heard, form))}"
        return kept(f"the code word came back from message.{field}; without it it {lost}")
    other = next((f for f in FIELDS if f != field and _tells(heard, form, f)), None)
    said = heard.message(f"{form} with {field}").content
    if other is not None:
        return broken(
            f"sent in message.{field} the code word was lost ({quote(said)}), in message.{other}"
            " it came back",
            cause=f"the endpoint answers in message.{field} and reads message.{other}",
            fix=_FIX,
            link=_DROPS,
        )
    return broken(
        f"the code word was {quote(secret)}, the answer {quote(said)}",
        cause="the reasoning in the history does not reach the model, or is not used",
        fix="`kimideploy audit` shows what a proxy drops; --chat-template must keep the reasoning",
        link=_DROPS,
    )


def _tells(heard: Heard, form: str, field: Field) -> bool:
    message = heard.brought(f"{form} with {field}")
    return message is not None and heard.words.secret in message.content


def _content(heard: Heard, form: str) -> str:
    return heard.message(f"{form} without").content


def _loop(promise: Promise) -> str | None:
    return no_thoughts(promise) or no_tools(promise)


def _turns(promise: Promise) -> str | None:
    if no_thoughts(promise) is not None:
        return no_thoughts(promise)
    return None if promise.keeps_turns else "the model forgets the reasoning of finished turns"


def _asks(form: str) -> tuple[str, ...]:
    return (*(f"{form} with {field}" for field in FIELDS), f"{form} without")


RULES = (
    Rule("history arrives", _arrives, _asks("loop"), quick=True, spare=_loop),
    Rule("history is used", _used, _asks("loop"), quick=True, spare=_loop),
    Rule("earlier turns are used", _kept, _asks("turns"), quick=True, spare=_turns),
)
