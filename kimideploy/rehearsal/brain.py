"""What the stand-in answers: a function from a request to a reply, or to a problem.

It thinks, always; it calls the tool it is offered, and answers in words once the tool has. What it
says is of `sense`, and what it does wrong when it is told to of `mischief`. Log probabilities and
response formats are taken and have no effect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kimideploy.rehearsal import mischief
from kimideploy.rehearsal.refuse import most_tokens, refused, too_long
from kimideploy.rehearsal.schema import arguments
from kimideploy.rehearsal.sense import sense, text_of
from kimideploy.rehearsal.types import Call, Mind, Problem, Reply

#: a made-up measure: four characters a token, and the template's own share
_CHARACTERS, _TEMPLATE = 4, 8
#: what a question names several of
_PLACE = re.compile(r"\bin ([A-Z]\w+)")


def answer(body: Any, mind: Mind, turn: int = 0) -> Reply | Problem:
    """Return what the engine answers to the chat completion request *body*.

    Equal requests have equal answers in the same `turn`.
    """
    problem = refused(body, mind)
    if problem is not None:
        return problem
    body = mischief.heard(body, mind)
    messages = [_arrived(one, mind) for one in body["messages"]]
    tools: list[Mapping[str, Any]] = body.get("tools") or []
    shown = [] if "hide-tools" in mind.mischief else tools
    try:
        prompt = tokens(json.dumps([messages, shown], ensure_ascii=False)) + _TEMPLATE
    except RecursionError:
        return Problem(400, "the request is nested too deeply")
    limit = most_tokens(body)
    if "cut-prompts" in mind.mischief:
        prompt = min(prompt, mind.context // 2)
    problem = too_long(prompt, limit, mind)
    if problem is not None:
        return problem
    room = mind.context - prompt
    most = room if limit is None else min(limit, room)
    turn = 0 if "greedy" in mind.mischief or body.get("temperature") == 0 else turn
    used = mischief.remembered(messages, mind)
    reasoning, content, calls = _thought(used, tools, body.get("tool_choice"), mind, turn)
    content = _stopped(content, body.get("stop"))
    reply = _cut(body, mind, reasoning, content, calls, prompt=prompt, most=most)
    return mischief.told(reply, body, mind)


def _arrived(message: Mapping[str, Any], mind: Mind) -> Mapping[str, Any]:
    """The message as it reaches the template: llama-server and SGLang read one field only."""
    if mind.family == "vllm" or "reasoning" not in message:
        return message
    return {name: value for name, value in message.items() if name != "reasoning"}


def _stopped(content: str | None, stop: Any) -> str | None:
    """The content before the first of the words that end it."""
    words = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    for word in words:
        if content is not None and isinstance(word, str) and word:
            content = content.partition(word)[0]
    return content


def tokens(text: str) -> int:
    """Return how many tokens *text* is taken for."""
    return -(-len(text) // _CHARACTERS)


def _cut(
    body: Mapping[str, Any],
    mind: Mind,
    reasoning: str,
    content: str | None,
    calls: tuple[Call, ...],
    *,
    prompt: int,
    most: int,
) -> Reply:
    """End the reply where *most* tokens are used up, thinking first."""
    choice = body.get("tool_choice")
    thought = tokens(reasoning)
    whole: str | None = None
    said = tokens(content or "") + sum(tokens(call.arguments) for call in calls)
    # Why: vLLM says "stop" after a call of the tool that was named, as OpenAI's API does.
    named = isinstance(choice, dict) and mind.family == "vllm"
    finish = "tool_calls" if calls and not named else "stop"
    if thought + said > most:
        left = max(0, most - thought)
        reasoning, finish = reasoning[: most * _CHARACTERS], "length"
        content = (content or "")[: left * _CHARACTERS] or None
        # Why: vLLM hands out the beginning of a call, and says "tool_calls" unless it streams.
        kept = calls if left and mind.family == "vllm" else ()
        calls = tuple(replace(c, arguments=c.arguments[: left * _CHARACTERS]) for c in kept)
        whole = "tool_calls" if calls and choice in (None, "auto") else None
    if content is None and mind.family == "vllm" and (choice == "required" or named):
        content = ""
    split = mind.reasoning_parser and not _switched_off(body, mind)
    count = int(body.get("n") or 1)
    used = min(thought + said, most)
    return Reply(
        model=_signed(body, mind),
        reasoning=reasoning,
        content=content,
        calls=calls,
        finish=finish,
        prompt_tokens=prompt,
        reasoning_tokens=min(thought, most) * count if split else 0,
        completion_tokens=used * count,
        split=split,
        shown=mind.family != "vllm" or body.get("include_reasoning") is not False,
        finish_whole=whole,
        choices=count,
    )


def _switched_off(body: Mapping[str, Any], mind: Mind) -> bool:
    """Whether the request turns vLLM's parser off; a model of forced thinking thinks on."""
    wishes = body.get("chat_template_kwargs")
    if mind.family != "vllm" or not isinstance(wishes, dict):
        return False
    said = [wishes[key] for key in ("thinking", "enable_thinking") if wishes.get(key) is not None]
    return bool(said) and not any(said)


def _signed(body: Mapping[str, Any], mind: Mind) -> str:
    """The model the answer names: SGLang repeats what was asked for, and knows only one."""
    asked = body.get("model")
    if mind.family == "sglang":
        return asked if isinstance(asked, str) else "default"
    return mind.model


def _thought(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    choice: Any,
    mind: Mind,
    turn: int,
) -> tuple[str, str | None, tuple[Call, ...]]:
    """Think about the last message, then call a tool or answer."""
    last = messages[-1]
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    told = bool(tools) and (named is not None or choice == "required")
    offered = bool(tools) and choice != "none" and last.get("role") != "tool"
    if not (told or offered):
        said = sense(messages, turn)
        return said.reasoning, said.content, ()
    tool = next((t for t in tools if t["function"]["name"] == named), tools[0])
    function = tool["function"]
    name = function["name"]
    reasoning = f"The user wants something {name} can do. I call it."
    count = sum(len(message.get("tool_calls") or ()) for message in messages)
    given = _arguments(function.get("parameters"), text_of(last.get("content")))
    calls = tuple(
        Call(f"functions.{name}:{count + number}", name, one) for number, one in enumerate(given)
    )
    if mind.tool_parser:
        return reasoning, None, calls
    return reasoning, "".join(mischief.raw(one.id, one.arguments) for one in calls), ()


def _arguments(schema: Any, text: str) -> list[str]:
    """Arguments that are valid for *schema*; several where the user wants several at once."""
    made = arguments(schema)
    places = _PLACE.findall(text) if "at once" in text else []
    values = json.loads(made)
    if len(places) < 2 or len(values) != 1 or not isinstance(next(iter(values.values())), str):  # noqa: PLR2004
        return [made]
    return [json.dumps(dict.fromkeys(values, place), separators=(",", ":")) for place in places]
