"""What the stand-in answers: a function from a request to a reply, or to a problem.

Limits, messages and status codes are those of vLLM 0.32.0, where it was asked the same
(tests/contract); how SGLang and llama-server word a refusal is unproved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: a made-up measure: four characters a token, and the template's own share
_CHARACTERS, _TEMPLATE = 4, 8
_DEEPEST = 40
_CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Mind:
    """What the argv decided about answers."""

    engine: str
    model: str
    root: str
    context: int
    #: the engine splits reasoning from content; without the parser `<think>` stays in it
    reasoning_parser: bool
    tool_parser: bool
    auto_tools: bool
    strict_thinking: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says; counts are tokens."""

    reasoning: str
    content: str | None
    calls: tuple[Call, ...]
    finish: str
    prompt_tokens: int
    reasoning_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal: HTTP status, words, kind, and the field it is about."""

    status: int
    message: str
    kind: str = "BadRequestError"
    param: str | None = None


def answer(body: Any, mind: Mind) -> Reply | Problem:
    """Return what the engine answers to the chat completion request *body*."""
    problem = _malformed(body, mind)
    if problem is not None:
        return problem
    messages: list[Mapping[str, Any]] = body["messages"]
    tools: list[Mapping[str, Any]] = body.get("tools") or []
    prompt = tokens(json.dumps([messages, tools], ensure_ascii=False)) + _TEMPLATE
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    problem = _too_long(prompt, limit, mind)
    if problem is not None:
        return problem
    most = limit if limit is not None else mind.context - prompt
    reasoning, content, calls = _thought(messages, tools, body.get("tool_choice"), mind)
    return _cut(reasoning, content, calls, prompt=prompt, most=most)


def tokens(text: str) -> int:
    """Return how many tokens *text* is taken for."""
    return -(-len(text) // _CHARACTERS)


def _cut(
    reasoning: str, content: str | None, calls: tuple[Call, ...], *, prompt: int, most: int
) -> Reply:
    """End the reply where *most* tokens are used up, thinking first."""
    thought = tokens(reasoning)
    said = tokens(content or "") + sum(tokens(call.arguments) for call in calls)
    if thought >= most:
        return Reply(reasoning[: most * _CHARACTERS], None, (), "length", prompt, most, most)
    if thought + said > most:
        left = (content or "")[: (most - thought) * _CHARACTERS]
        return Reply(reasoning, left, (), "length", prompt, thought, most)
    finish = "tool_calls" if calls else "stop"
    return Reply(reasoning, content, calls, finish, prompt, thought, thought + said)


def _thought(
    messages: list[Mapping[str, Any]],
    tools: list[Mapping[str, Any]],
    choice: Any,
    mind: Mind,
) -> tuple[str, str | None, tuple[Call, ...]]:
    """Think about the last message, then call a tool or answer."""
    last = messages[-1]
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    callable_ = tools and choice != "none"
    if callable_ and (named or choice == "required" or last.get("role") != "tool"):
        tool = next((t for t in tools if t["function"]["name"] == named), tools[0])
        name = tool["function"]["name"]
        schema = tool["function"].get("parameters") or {}
        reasoning = f"The user wants something {name} can do. I call it."
        arguments = json.dumps(example(schema), ensure_ascii=False)
        if mind.tool_parser:
            count = sum(len(m.get("tool_calls") or ()) for m in messages)
            return reasoning, None, (Call(f"functions.{name}:{count}", name, arguments),)
        raw = (
            "<|tool_calls_section_begin|><|tool_call_begin|>"
            f"functions.{name}:0<|tool_call_argument_begin|>{arguments}"
            "<|tool_call_end|><|tool_calls_section_end|>"
        )
        return reasoning, raw, ()
    if last.get("role") == "tool":
        return (
            "The tool has answered. I tell the user what it said.",
            f"The tool says: {_text(last.get('content'))[:200]}",
            (),
        )
    return (
        "This is a rehearsal: no model is loaded. I still think before I answer.",
        "I am the stand-in for a Kimi model. Your endpoint works; the answers come later.",
        (),
    )


def example(schema: Any, depth: int = 0) -> Any:  # noqa: C901, PLR0911  one case a kind
    """Return a value that is valid for a JSON schema of the usual kinds."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return {} if depth == 0 else "x"
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return example(schema[key][0], depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or (kind is None and "properties" in schema) or depth == 0:
        properties = schema.get("properties")
        required = schema.get("required")
        wanted = required if isinstance(required, list) else []
        inner = properties if isinstance(properties, dict) else {}
        return {str(k): example(inner.get(k, {}), depth + 1) for k in wanted}
    if kind == "array":
        count = _whole(schema.get("minItems"), 1)
        return [example(schema.get("items", {}), depth + 1) for _ in range(min(count, 16))]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 1)
        return low if isinstance(low, (int, float)) else 1
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return "print(6 * 7)".ljust(min(_whole(schema.get("minLength"), 0), 4096))


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return " ".join(str(part) for part in parts)
    return str(content or "")


def _malformed(body: Any, mind: Mind) -> Problem | None:  # noqa: C901, PLR0911
    """Return the first thing that is wrong with the request, in the order vLLM finds them."""
    if not isinstance(body, dict):
        return _invalid("body", "Input should be a valid dictionary")
    messages, tools, choice = body.get("messages"), body.get("tools"), body.get("tool_choice")
    if "messages" not in body:
        return _invalid("body.messages", "Field required")
    if not isinstance(messages, list):
        return _invalid("body.messages", "Input should be a valid list")
    if tools is not None and not isinstance(tools, list):
        return _invalid("body.tools", "Input should be a valid list")
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        return _invalid("body.messages", "Input should be a message with a role")
    for tool in tools or []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return _invalid("body.tools", "Input should be a tool with a function and its name")
    if body.get("model") not in (None, mind.model):
        return Problem(
            404,
            f"The model `{body['model']}` does not exist. Valid aliases: {mind.model}.",
            "NotFoundError",
            "model",
        )
    problem = _numbers(body) or _choice(choice, tools, mind)
    if problem is not None:
        return problem
    if not messages:
        return Problem(
            400,
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
        )
    return _lost_reasoning(messages) if mind.strict_thinking else None


def _numbers(body: Mapping[str, Any]) -> Problem | None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            return _invalid(f"body.{name}", "Input should be a valid integer")
        if value is not None and value < 1:
            return _wrong(name, value, f"{name} must be at least 1, got {value}.")
    temperature = body.get("temperature")
    if temperature is not None and (
        isinstance(temperature, bool) or not isinstance(temperature, (int, float))
    ):
        return _invalid("body.temperature", "Input should be a valid number")
    if temperature is not None and temperature < 0:
        value = float(temperature)
        return _wrong("temperature", value, f"temperature must be non-negative, got {value}.")
    return None


def _choice(choice: Any, tools: Any, mind: Mind) -> Problem | None:
    if choice is not None and choice != "none" and not tools:
        return Problem(
            400,
            "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)",
            param="tool_choice",
        )
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in [tool["function"]["name"] for tool in tools]:
            return Problem(
                400,
                "The tool specified in `tool_choice` does not match any of the specified `tools`"
                " (parameter=tool_choice)",
                param="tool_choice",
            )
    elif choice is not None and choice not in _CHOICES:
        return _invalid("body.tool_choice", "Input should be 'none', 'auto' or 'required'")
    # Why: vLLM takes tools without a choice for "auto", and refuses it without these flags.
    automatic = tools and choice in (None, "auto")
    if automatic and mind.engine == "vllm" and not (mind.auto_tools and mind.tool_parser):
        return Problem(
            400,
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'
            " to be set",
        )
    return None


def _too_long(prompt: int, limit: int | None, mind: Mind) -> Problem | None:
    if limit is not None and limit > mind.context:
        return _wrong(
            "max_tokens",
            limit,
            f"max_tokens={limit} cannot be greater than max_model_len={mind.context}."
            " Please request fewer output tokens.",
        )
    if prompt + (limit or 1) > mind.context:
        return _wrong(
            "input_tokens",
            prompt,
            f"This model's maximum context length is {mind.context} tokens. However, your prompt"
            f" contains at least {prompt} input tokens. Please reduce the length of the input"
            " prompt.",
        )
    return None


def _lost_reasoning(messages: list[Mapping[str, Any]]) -> Problem | None:
    """Moonshot's API refuses an assistant's tool-call turn whose reasoning was dropped."""
    for index, message in enumerate(messages):
        called = message.get("role") == "assistant" and message.get("tool_calls")
        if called and not (message.get("reasoning_content") or message.get("reasoning")):
            return Problem(
                400,
                "thinking is enabled but reasoning_content is missing in assistant tool call"
                f" message at index {index}",
                "invalid_request_error",
            )
    return None


def _wrong(name: str, value: float, message: str) -> Problem:
    return Problem(400, f"{message} (parameter={name}, value={value})", param=name)


def _invalid(place: str, message: str) -> Problem:
    return Problem(
        400,
        f"1 validation error:\n  {{'loc': '{place}', 'msg': '{message}'}}",
        "Bad Request",
        place,
    )
