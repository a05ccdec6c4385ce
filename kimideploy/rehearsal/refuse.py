"""What each engine refuses, in its words: a function from a request to a problem, or None.

vLLM's are held against answers of the real 0.32.0 (tests/judges/logs). SGLang's and llama-server's
are read off their sources (0.5.23, b11434) where these check a request themselves; how they word a
field of the wrong type is unproved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kimideploy.rehearsal.types import Mind, Problem

_CHOICES = ("none", "auto", "required")
_MOST_CHOICES = 64
#: the longest spelt number that is read, the largest that is still a float
_DIGITS, _FLOATS = 20, 1e300
_INTEGERS = {
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_type": "Input should be a valid integer",
}


def refused(body: Any, mind: Mind) -> Problem | None:
    """Return the first thing that is wrong with the chat completion request *body*."""
    return (
        _shape(body, mind)
        or _MORE[mind.family](body, mind)
        or _numbers(body, mind)
        or (_lost_reasoning(body["messages"]) if mind.strict_thinking else None)
    )


def most_tokens(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens the answer may have; None: as many as fit."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = _integer(body.get(name))
        if isinstance(value, int) and value > 0:
            return value
    return None


def too_long(prompt: int, limit: int | None, mind: Mind) -> Problem | None:
    """Return the refusal of a prompt that leaves no room, as each engine counts."""
    context = mind.context
    match mind.family:
        case "vllm" if prompt >= context:
            return _wrong(
                "input_tokens",
                prompt,
                f"This model's maximum context length is {context} tokens. However, your prompt"
                f" contains at least {prompt} input tokens, which exceeds this limit even without"
                " any output tokens. Please reduce the length of the input prompt.",
            )
        case "sglang" if prompt >= context:
            return Problem(
                400,
                f"The input ({prompt} tokens) is longer than the model's context length"
                f" ({context} tokens).",
            )
        case "sglang" if limit is not None and limit + prompt > context:
            return Problem(
                400,
                "Requested token count exceeds the model's maximum context length of"
                f" {context} tokens. You requested a total of {limit + prompt} tokens: {prompt}"
                f" tokens from the input messages and {limit} tokens for the completion. Please"
                " reduce the number of tokens in the input messages or the completion to fit"
                " within the limit.",
            )
        case "llamacpp" if prompt >= context:
            return Problem(
                400,
                f"request ({prompt} tokens) exceeds the available context size ({context} tokens),"
                " try increasing it",
                "exceed_context_size_error",
            )
        case _:
            return None


def invalid(kind: str, place: str, message: str, value: Any) -> Problem:
    """Return a refusal of a field of the wrong type, as vLLM words pydantic's."""
    shown = value
    if isinstance(value, (dict, list)):
        shown = f"<{type(value).__name__} of {len(value)} items>"
    text = f"'type': {kind!r}, 'loc': {place!r}, 'msg': {message!r}, 'input': {str(shown)!r}"
    return Problem(400, f"1 validation error:\n  {{{text}}}", "Bad Request", place)


def _shape(body: Any, mind: Mind) -> Problem | None:  # noqa: PLR0911  one return a field
    if not isinstance(body, dict):
        words = "Input should be a valid dictionary or object to extract fields from"
        return invalid("model_attributes_type", "body", words, body)
    if "messages" not in body:
        if mind.family == "llamacpp":
            return Problem(400, "'messages' is required")
        return invalid("missing", "body.messages", "Field required", body)
    messages = body["messages"]
    if not isinstance(messages, list):
        if mind.family == "llamacpp":
            return Problem(400, "Expected 'messages' to be an array")
        return invalid("list_type", "body.messages", "Input should be a valid list", messages)
    for index, message in enumerate(messages):
        problem = _message(message, f"body.messages.{index}")
        if problem is not None:
            return problem
    return _tools(body.get("tools")) or _choice(body.get("tool_choice"))


def _tools(tools: Any) -> Problem | None:
    if tools is None:
        return None
    if not isinstance(tools, list):
        return invalid("list_type", "body.tools", "Input should be a valid list", tools)
    for index, tool in enumerate(tools):
        place = f"body.tools.{index}"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            return invalid("missing", f"{place}.function", "Field required", tool)
        if not isinstance(function.get("name"), str):
            return invalid("missing", f"{place}.function.name", "Field required", function)
    return None


def _choice(choice: Any) -> Problem | None:
    if isinstance(choice, dict):
        function = choice.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return invalid("missing", "body.tool_choice.function", "Field required", choice)
    elif choice is not None and choice not in _CHOICES:
        words = "Input should be 'none', 'auto' or 'required'"
        return invalid("literal_error", "body.tool_choice", words, choice)
    return None


def _message(message: Any, place: str) -> Problem | None:
    if not isinstance(message, dict):
        return invalid("dict_type", place, "Input should be a valid dictionary", message)
    if not isinstance(message.get("role"), str):
        return invalid("missing", f"{place}.role", "Field required", message)
    content = message.get("content")
    if content is not None and not isinstance(content, (str, list)):
        return invalid("string_type", f"{place}.content", "Input should be a valid string", content)
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        return invalid("list_type", f"{place}.tool_calls", "Input should be a valid list", calls)
    return None


def _numbers(body: Mapping[str, Any], mind: Mind) -> Problem | None:
    for name in ("max_tokens", "max_completion_tokens", "n"):
        problem = _count(name, body.get(name), mind)
        if problem is not None:
            return problem
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _FLOATS:
            return invalid("float_type", f"body.{name}", "Input should be a valid number", value)
        if name == "temperature" and value < 0:
            words = f"temperature must be non-negative, got {float(value)}."
            return _wrong(name, float(value), words)
        count = _integer(body.get("n"))
        if name == "temperature" and value == 0 and count not in (None, 1):
            return Problem(400, f"n must be 1 when using greedy sampling, got {count}.")
        if name == "top_p" and not 0 < value <= 1:
            return _wrong(name, value, f"top_p must be in (0, 1], got {value}.")
    return None


def _count(name: str, given: Any, mind: Mind) -> Problem | None:
    value = _integer(given)
    if value is None:
        return None
    if isinstance(value, str):
        return invalid(value, f"body.{name}", _INTEGERS[value], given)
    # Why: llama-server takes a negative limit for none.
    if value < 1 and not (mind.family == "llamacpp" and name != "n"):
        return _wrong(name, value, f"{name} must be at least 1, got {value}.")
    if name == "n" and value > _MOST_CHOICES:
        return _wrong(name, value, f"n must be at most {_MOST_CHOICES}, got {value}.")
    if name != "n" and mind.family == "vllm" and value > mind.context:
        words = f"{name}={value} cannot be greater than max_model_len={mind.context}."
        return _wrong(name, value, f"{words} Please request fewer output tokens.")
    return None


def _vllm(body: Mapping[str, Any], mind: Mind) -> Problem | None:  # noqa: PLR0911
    tools, choice = body.get("tools"), body.get("tool_choice")
    if body.get("stream_options") is not None and not body.get("stream"):
        return _about("stream_options", "Stream options can only be defined when `stream=True`.")
    if tools == []:
        words = "`tools` must not be an empty array. Either provide at least one tool or omit the"
        return _about("tools", f"{words} field entirely.")
    if choice is not None and choice != "none" and not tools:
        return _about("tool_choice", "When using `tool_choice`, `tools` must be set.")
    if _unoffered(body):
        words = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        return _about("tool_choice", words)
    if body.get("model") not in (None, "", mind.model):
        words = f"The model `{body['model']}` does not exist. Valid aliases: {mind.model}."
        return Problem(404, words, "NotFoundError", "model")
    # Why: vLLM takes tools without a choice for "auto", and refuses it without these flags.
    if tools and choice in (None, "auto") and not (mind.auto_tools and mind.tool_parser):
        words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'
        return Problem(400, f"{words} to be set")
    if not body["messages"]:
        words = "Cannot apply chat template to an empty conversation."
        return Problem(400, f"{words} Provide at least one message.")
    return None


def _sglang(body: Mapping[str, Any], mind: Mind) -> Problem | None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    limit = most_tokens(body)
    if not body["messages"]:
        return Problem(400, "Messages cannot be empty.")
    if choice == "required" and not tools:
        return Problem(400, "Tools cannot be empty if tool choice is set to required.")
    if isinstance(choice, dict) and not tools:
        return Problem(400, "Tools cannot be empty if tool choice is set to a specific tool.")
    if _unoffered(body):
        return Problem(
            400, f"Tool '{body['tool_choice']['function']['name']}' not found in tools list."
        )
    if limit is not None and limit > mind.context:
        words = f"max_completion_tokens is too large: {limit}.This model supports at most"
        return Problem(400, f"{words} {mind.context} completion tokens.")
    return None


def _llamacpp(body: Mapping[str, Any], mind: Mind) -> Problem | None:
    if not body["messages"]:
        return Problem(400, f"{mind.model}: no messages")
    if _unoffered(body) or (body.get("tool_choice") == "required" and not body.get("tools")):
        return Problem(400, f"Invalid tool_choice: {body['tool_choice']}")
    return None


#: what each family checks beyond the shape
_MORE = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llamacpp}


def _unoffered(body: Mapping[str, Any]) -> bool:
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return False
    names = [tool["function"]["name"] for tool in body.get("tools") or []]
    return choice["function"]["name"] not in names


def _lost_reasoning(messages: Sequence[Mapping[str, Any]]) -> Problem | None:
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


def _integer(value: Any) -> int | str | None:
    """The whole number that *value* is or spells; else the kind of mistake."""
    match value:
        case None:
            return None
        case int():
            return int(value)
        case float():
            return int(value) if value.is_integer() else "int_from_float"
        case str() if value.strip().lstrip("+-").isdecimal() and len(value) < _DIGITS:
            return int(value)
        case str():
            return "int_parsing"
        case _:
            return "int_type"


def _about(name: str, message: str) -> Problem:
    return Problem(400, f"{message} (parameter={name})", param=name)


def _wrong(name: str, value: float, message: str) -> Problem:
    return Problem(400, f"{message} (parameter={name}, value={value})", param=name)
