"""What the stand-in answers: a function from a request to a reply, or to a problem.

It thinks, always; it calls the tool it is offered, and answers in words once the tool has. Equal
requests have equal answers. Stop words, log probabilities and response formats are taken and have
no effect; images are taken and not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kimideploy.rehearsal.refuse import most_tokens, refused, too_long
from kimideploy.rehearsal.schema import arguments
from kimideploy.rehearsal.types import Call, Mind, Problem, Reply

#: a made-up measure: four characters a token, and the template's own share
_CHARACTERS, _TEMPLATE = 4, 8
_QUOTED = 200


def answer(body: Any, mind: Mind) -> Reply | Problem:
    """Return what the engine answers to the chat completion request *body*."""
    problem = refused(body, mind)
    if problem is not None:
        return problem
    messages: list[Mapping[str, Any]] = body["messages"]
    tools: list[Mapping[str, Any]] = body.get("tools") or []
    try:
        prompt = tokens(json.dumps([messages, tools], ensure_ascii=False)) + _TEMPLATE
    except RecursionError:
        return Problem(400, "the request is nested too deeply")
    limit = most_tokens(body)
    problem = too_long(prompt, limit, mind)
    if problem is not None:
        return problem
    room = mind.context - prompt
    most = room if limit is None else min(limit, room)
    reasoning, content, calls = _thought(messages, tools, body.get("tool_choice"), mind)
    return _cut(body, mind, reasoning, content, calls, prompt=prompt, most=most)


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
) -> tuple[str, str | None, tuple[Call, ...]]:
    """Think about the last message, then call a tool or answer."""
    last = messages[-1]
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    told = bool(tools) and (named is not None or choice == "required")
    offered = bool(tools) and choice != "none" and last.get("role") != "tool"
    if told or offered:
        tool = next((t for t in tools if t["function"]["name"] == named), tools[0])
        name = tool["function"]["name"]
        reasoning = f"The user wants something {name} can do. I call it."
        given = arguments(tool["function"].get("parameters"))
        count = sum(len(message.get("tool_calls") or ()) for message in messages)
        call = Call(f"functions.{name}:{count}", name, given)
        return (reasoning, None, (call,)) if mind.tool_parser else (reasoning, _raw(call), ())
    if last.get("role") == "tool":
        return (
            "The tool has answered. I tell the user what it said.",
            f"The tool says: {_text(last.get('content'))[:_QUOTED]}",
            (),
        )
    return (
        "This is a rehearsal: no model is loaded. I still think before I answer.",
        "I am the stand-in for a Kimi model. Your endpoint works; the answers come later.",
        (),
    )


def _raw(call: Call) -> str:
    """The model's own words for a call, which stay in the content where no parser reads them."""
    return (
        f"<|tool_calls_section_begin|><|tool_call_begin|>{call.id}"
        f"<|tool_call_argument_begin|>{call.arguments}<|tool_call_end|><|tool_calls_section_end|>"
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return " ".join(str(part) for part in parts)
    return str(content or "")
