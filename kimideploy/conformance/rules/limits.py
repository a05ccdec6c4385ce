"""Where answers end, what a prompt weighs, and what is refused."""

from __future__ import annotations

import re

from kimideploy.conformance.answers import quote
from kimideploy.conformance.asks import DRAWS, FEW, STOP
from kimideploy.conformance.promise import Promise
from kimideploy.conformance.rules.base import (
    Finding,
    Heard,
    Rule,
    broken,
    kept,
    no_tools,
    spared,
)

#: how a server that can't see says so, whatever its status (llama-server's is 500)
_BLIND = re.compile("image|multimodal|vision", re.IGNORECASE)
_RED = re.compile(r"\bred\b", re.IGNORECASE)
_DRAWN = tuple(f"draw {number}" for number in range(DRAWS))


def _finish(heard: Heard) -> Finding:
    seen = {"question": heard.message("question").finish}
    owed = {"question": "stop"}
    if heard.promise.calls_tools:
        seen["call"], owed["call"] = heard.message("call").finish, "tool_calls"
    wrong = [name for name in owed if seen[name] != owed[name]]
    if not wrong:
        return kept(", ".join(f"{name}: {finish}" for name, finish in seen.items()))
    return broken(
        ", ".join(f"{name}: {seen[name]}, not {owed[name]}" for name in wrong),
        cause="clients go by it: a loop ends, or never does",
        fix="a newer version of the engine, or no proxy between",
    )


def _cut(heard: Heard) -> Finding:
    message = heard.message("cut off")
    if message.finish != "length":
        return broken(
            f"with max_tokens {FEW} it finished with {message.finish}: {quote(message.text)}",
            cause="max_tokens is ignored, or the finish is not told",
        )
    if message.completion_tokens is not None and message.completion_tokens > FEW:
        return broken(f"{message.completion_tokens} tokens came, {FEW} were asked for")
    empty = "content is empty" if not message.content else f"content {quote(message.content)}"
    return kept(f"length after {FEW} tokens; {empty}, as thinking comes first")


def _stop(heard: Heard) -> Finding:
    message = heard.message("stop")
    if STOP in message.content:
        return broken(
            f"told to stop before {quote(STOP)}: {quote(message.content)}",
            cause="stop is ignored",
        )
    if message.finish != "stop":
        return broken(f"finish_reason is {message.finish}, not stop")
    return kept(f"it ended before {quote(STOP)}: {quote(message.content)}")


def _weight(heard: Heard) -> Finding:
    heard.message("question")
    known = dict(heard.promise.prompt_tokens)
    seen = {name: message.prompt_tokens for name, message in heard.messages()}
    for name, owed in known.items():
        if seen.get(name) is not None and seen[name] != owed:
            return broken(
                f"{name}: {seen[name]} prompt tokens, {owed} with the model's own template",
                cause="another chat template or tokenizer than the model's",
                fix="serve the checkpoint's own files at the pinned revision, no --chat-template",
            )
    weighed = sum(seen.get(name) is not None for name in known)
    if weighed:
        return kept(f"{weighed} prompts weigh what they should")
    bare, offered = seen.get("question"), seen.get("offered")
    if bare is None or offered is None:
        return spared("the endpoint does not count prompt tokens")
    if offered - bare < FEW:
        return broken(
            f"{bare} prompt tokens, {offered} with a tool declared",
            cause="tools do not reach the prompt",
            fix="serve the checkpoint's own chat template",
        )
    return kept(f"{bare} tokens, {offered} with a tool; no constant is known for this model")


def _images(heard: Heard) -> Finding:
    answer, planned = heard.answers["image"], heard.promise.images
    message = heard.brought("image")
    if message is not None and _RED.search(message.content) is not None:
        return kept(f"a red picture is {quote(message.content)}")
    clear = answer.refused or (not answer.ok and _BLIND.search(answer.body) is not None)
    if clear and not planned:
        return kept(f"refused{', as planned' if planned is False else ''}: {answer.said}")
    if clear:
        return broken(
            answer.said,
            cause="the vision part of the model is not served",
            fix="no --language-model-only; llama-server: --mmproj FILE",
        )
    heard.message("image")
    return broken(
        f"a red picture was answered with {answer.said}",
        cause="pictures are taken and not looked at"
        if not planned
        else "the vision part of the model goes wrong",
        fix="a version that refuses what it can't see, or serves the vision part",
    )


def _context(heard: Heard) -> Finding:
    answer, context = heard.answers["too long"], heard.promise.context
    if answer.refused and any(word in answer.body.lower() for word in ("context", "token", "long")):
        return kept(f"over {context} tokens: {answer.said}")
    if answer.status == 413:  # noqa: PLR2004  as good a refusal
        return kept(f"over {context} tokens: {answer.said}")
    return broken(
        f"a prompt of over {context} tokens: {answer.said}",
        cause="prompts are cut silently, or the limit is not the one that is told"
        if answer.ok
        else "the refusal does not say what is wrong",
        fix="--max-model-len as planned; llama-server: no --context-shift",
    )


def _sampling(heard: Heard) -> Finding:
    drawn = [heard.message(name) for name in _DRAWN]
    if len({message.text for message in drawn}) > 1:
        some = ", ".join(dict.fromkeys(quote(message.content.strip(), 24) for message in drawn))
        return kept(f"{DRAWS} draws without a temperature differ: {some}")
    return broken(
        f"{DRAWS} times the very same: {quote(drawn[0].content)}",
        cause="without a temperature in the request the endpoint samples greedily, which leads"
        " this model into loops; or it answers from a cache",
        fix="temperature 1.0 and top_p 0.95 as defaults: --override-generation-config on vLLM",
    )


def _no_context(promise: Promise) -> str | None:
    return None if promise.context is not None else "the endpoint does not tell its context"


RULES = (
    Rule("finish reasons", _finish, ("question", "call"), quick=True),
    Rule("prompt tokens", _weight, ("question", "offered"), quick=True, spare=no_tools),
    Rule("max_tokens", _cut, ("cut off",)),
    Rule("stop words", _stop, ("stop",)),
    Rule("images", _images, ("image",)),
    Rule("context limit", _context, ("too long",), spare=_no_context),
    Rule("sampling by default", _sampling, _DRAWN),
)
