"""Replies and problems as the engine's own JSON.

vLLM's shapes are held against answers of the real 0.32.0; SGLang's and llama-server's are those
of the models and serializers in their sources (0.5.23, b11434), where no server of theirs ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimideploy.rehearsal.types import Call, Mind, Problem, Reply

VERSION = "rehearsal"
_LLAMA_KINDS = {401: "authentication_error", 404: "not_found_error", 501: "not_supported_error"}
#: keys vLLM sends as null when nobody asked for them
_VLLM_NULLS = (
    "prompt_logprobs",
    "prompt_token_ids",
    "prompt_text",
    "kv_transfer_params",
    "ec_transfer_params",
    "metrics",
)


def problem_body(problem: Problem, mind: Mind) -> dict[str, Any]:
    """Return the body of a refusal."""
    error: dict[str, Any] = {
        "message": problem.message,
        "type": problem.kind,
        "param": problem.param,
        "code": problem.status,
    }
    match mind.family:
        case "vllm":
            return {"error": error}
        case "sglang":
            return {"object": "error", **error}
        case "llamacpp":
            kind = problem.kind if problem.kind.endswith("_error") else "invalid_request_error"
            named = {"message": problem.message, "type": _LLAMA_KINDS.get(problem.status, kind)}
            return {"error": {"code": problem.status, **named}}


def models(mind: Mind, *, now: int) -> dict[str, Any]:
    """Return the answer to /v1/models."""
    model: dict[str, Any] = {"id": mind.model, "object": "model", "created": now}
    match mind.family:
        case "vllm":
            model |= {"owned_by": "vllm", "root": mind.root, "parent": None}
            model |= {"max_model_len": mind.context, "permission": [_permission(now)]}
        case "sglang":
            model |= {"owned_by": "sglang", "root": mind.model, "parent": None}
            model |= {"max_model_len": mind.context}
        case "llamacpp":
            meta = {"n_ctx": mind.context, "n_ctx_train": 262_144}
            model |= {"owned_by": "llamacpp", "aliases": [], "tags": [], "meta": meta}
            listed = {"name": mind.model, "model": mind.model, "type": "model"}
            return {"models": [listed], "object": "list", "data": [model]}
    return {"object": "list", "data": [model]}


def _permission(now: int) -> dict[str, Any]:
    return {
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


def completion(reply: Reply, mind: Mind, *, number: int, now: int) -> dict[str, Any]:
    """Return a whole chat completion."""
    body: dict[str, Any] = {
        "id": request_id(number, mind),
        "object": "chat.completion",
        "created": now,
        "model": reply.model,
        "choices": [_choice(reply, mind, index) for index in range(reply.choices)],
    }
    match mind.family:
        case "vllm":
            body |= {"service_tier": None, "system_fingerprint": VERSION}
            body |= {"usage": usage(reply, mind) | {"prompt_tokens_details": None}}
            body |= dict.fromkeys(_VLLM_NULLS)
        case "sglang":
            body |= {"usage": usage(reply, mind), "metadata": {"weight_version": "default"}}
        case "llamacpp":
            body |= {"system_fingerprint": VERSION, "usage": usage(reply, mind)}
            body |= {"timings": timings(reply)}
    return body


def request_id(number: int, mind: Mind) -> str:
    """Return the id of an answer in the engine's manner."""
    return f"{number:032x}" if mind.family == "sglang" else f"chatcmpl-{number:016x}"


def _choice(reply: Reply, mind: Mind, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", **said(reply, mind)}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": function(call)} for call in reply.calls
        ]
    finish = reply.finish_whole or reply.finish
    choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": finish}
    match mind.family:
        case "vllm":
            message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
            choice |= dict.fromkeys(("logprobs", "stop_reason", "token_ids", "routed_experts"))
        case "sglang":
            for place, call in enumerate(message.get("tool_calls", ())):
                call["index"] = place
            choice |= dict.fromkeys(("logprobs", "matched_stop"))
        case "llamacpp":
            message["content"] = message["content"] or ""
            if not message[mind.field]:
                del message[mind.field]
    return choice


def function(call: Call) -> dict[str, str]:
    """Return a call's name and arguments."""
    return {"name": call.name, "arguments": call.arguments}


def said(reply: Reply, mind: Mind) -> dict[str, str | None]:
    """Return content and reasoning, in the fields this engine with these parsers puts them in."""
    field = mind.field
    if not reply.split:
        # Why: nothing parts the text then, and the template opened <think> for the model.
        return {"content": f"{reply.reasoning}</think>{reply.content or ''}", field: None}
    return {"content": reply.content, field: (reply.reasoning or None) if reply.shown else None}


def usage(reply: Reply, mind: Mind) -> dict[str, Any]:
    """Return what the request used, in tokens."""
    if "no-usage" in mind.mischief:
        return {}
    used: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    thought: Mapping[str, int] = {"reasoning_tokens": reply.reasoning_tokens}
    match mind.family:
        case "vllm":
            return used | {"completion_tokens_details": thought}
        case "sglang":
            details = thought if reply.reasoning_tokens else None
            return (
                used
                | {"prompt_tokens_details": None, **thought}
                | {"completion_tokens_details": details}
            )
        case "llamacpp":
            return used | {"prompt_tokens_details": {"cached_tokens": 0}}


def timings(reply: Reply) -> dict[str, Any]:
    """Return llama-server's timings; a stand-in takes no time worth telling."""
    kinds = ("ms", "per_token_ms", "per_second")
    rates = [f"{what}_{kind}" for what in ("prompt", "predicted") for kind in kinds]
    counts = {"cache_n": 0, "prompt_n": reply.prompt_tokens, "predicted_n": reply.completion_tokens}
    return {**counts, **dict.fromkeys(rates, 1.0)}
