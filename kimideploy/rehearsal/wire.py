"""Replies and problems as the engine's own JSON and server-sent events.

The shapes of vLLM 0.32.0 were recorded from the real engine; those of SGLang and llama-server
are the common fields of the API with the engine's own name for reasoning, and unproved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kimideploy.rehearsal.brain import Mind, Problem, Reply

#: pieces a text is streamed in, in characters
_PIECE = 12
_FIELD = {
    "vllm": "reasoning",
    "sglang": "reasoning_content",
    "ktransformers": "reasoning_content",
    "llamacpp": "reasoning_content",
}
_OWNER = {"vllm": "vllm", "sglang": "sglang", "ktransformers": "sglang", "llamacpp": "llamacpp"}


def problem_body(problem: Problem, mind: Mind) -> dict[str, Any]:
    """Return the body of a refusal."""
    error = {
        "message": problem.message,
        "type": problem.kind,
        "param": problem.param,
        "code": problem.status,
    }
    return (
        error | {"object": "error"}
        if mind.engine in ("sglang", "ktransformers")
        else {"error": error}
    )


def models(mind: Mind, *, now: int) -> dict[str, Any]:
    """Return the answer to /v1/models."""
    model: dict[str, Any] = {
        "id": mind.model,
        "object": "model",
        "created": now,
        "owned_by": _OWNER[mind.engine],
        "root": mind.root,
        "parent": None,
        "max_model_len": mind.context,
    }
    if mind.engine == "vllm":
        model["permission"] = [
            {
                "id": "modelperm-rehearsal",
                "object": "model_permission",
                "created": now,
                "allow_create_engine": False,
                "allow_sampling": True,
                "allow_logprobs": True,
                "allow_search_indices": False,
                "allow_view": True,
                "allow_fine_tuning": False,
                "organization": "*",
                "group": None,
                "is_blocking": False,
            }
        ]
    return {"object": "list", "data": [model]}


def completion(reply: Reply, mind: Mind, *, number: int, now: int) -> dict[str, Any]:
    """Return a whole chat completion."""
    message: dict[str, Any] = {"role": "assistant", **_said(reply, mind)}
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in reply.calls
        ]
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": reply.finish,
    }
    body: dict[str, Any] = {
        "id": f"chatcmpl-{number:016x}",
        "object": "chat.completion",
        "created": now,
        "model": mind.model,
        "choices": [choice],
        "usage": usage(reply),
    }
    if mind.engine == "vllm":
        message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
        choice |= dict.fromkeys(("stop_reason", "token_ids", "routed_experts"))
        body["usage"]["prompt_tokens_details"] = None
        body |= {"system_fingerprint": "rehearsal"} | dict.fromkeys(
            (
                "service_tier",
                "prompt_logprobs",
                "prompt_token_ids",
                "prompt_text",
                "kv_transfer_params",
                "ec_transfer_params",
                "metrics",
            )
        )
    return body


def usage(reply: Reply) -> dict[str, Any]:
    """Return what the request used, in tokens."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        "completion_tokens": reply.completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def events(reply: Reply, mind: Mind, *, number: int, now: int, with_usage: bool) -> Iterator[bytes]:
    """Yield the server-sent events of a streamed completion, `[DONE]` last."""
    head = {
        "id": f"chatcmpl-{number:016x}",
        "object": "chat.completion.chunk",
        "created": now,
        "model": mind.model,
    }

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice: dict[str, Any] = {
            "index": 0,
            "delta": dict(delta),
            "logprobs": None,
            "finish_reason": finish,
        }
        return _event({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    said = _said(reply, mind)
    for field in (_FIELD[mind.engine], "content"):
        for piece in _pieces(said.get(field) or ""):
            yield chunk({field: piece})
    for index, call in enumerate(reply.calls):
        function = {"name": call.name, "arguments": ""}
        start = {"index": index, "id": call.id, "type": "function", "function": function}
        yield chunk({"tool_calls": [start]})
        for piece in _pieces(call.arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, reply.finish)
    if with_usage:
        yield _event({**head, "choices": [], "usage": usage(reply)})
    yield b"data: [DONE]\n\n"


def metrics(mind: Mind, *, requests: int, generated: int) -> str:
    """Return the engine's main metrics in Prometheus' text format."""
    names = {
        "vllm": ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:generation_tokens"),
        "llamacpp": ("llamacpp:requests_processing", "", "llamacpp:tokens_predicted"),
    }
    running, cache, tokens = names.get(
        mind.engine, ("sglang:num_running_reqs", "sglang:token_usage", "sglang:generation_tokens")
    )
    label = f'{{model_name="{mind.model}"}}'
    lines = [f"# TYPE {running} gauge", f"{running}{label} 0.0"]
    if cache:
        lines += [f"# TYPE {cache} gauge", f"{cache}{label} 0.0"]
    lines += [f"# TYPE {tokens}_total counter", f"{tokens}_total{label} {float(generated)}"]
    if mind.engine == "vllm":
        lines += [
            "# TYPE vllm:request_success_total counter",
            f"vllm:request_success_total{label} {float(requests)}",
        ]
    return "\n".join(lines) + "\n"


def _said(reply: Reply, mind: Mind) -> dict[str, Any]:
    """Content and reasoning, in the fields this engine with these parsers puts them in."""
    if not mind.reasoning_parser:
        # Why: nothing splits the text then, and the template opened <think> for the model.
        return {"content": f"{reply.reasoning}</think>{reply.content or ''}"}
    content = reply.content
    if mind.engine == "vllm" and reply.calls:
        content = ""
    return {"content": content, _FIELD[mind.engine]: reply.reasoning or None}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
