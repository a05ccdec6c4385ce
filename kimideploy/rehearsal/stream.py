"""A reply as the server-sent events of a streamed completion.

vLLM's chunks are held against the real 0.32.0; the others' are those of their sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kimideploy.rehearsal.types import Call, Mind, Reply
from kimideploy.rehearsal.wire import VERSION, function, request_id, said, timings, usage

#: characters a piece of a streamed text has
_PIECE = 12


def events(
    reply: Reply, mind: Mind, *, number: int, now: int, options: Mapping[str, Any]
) -> Iterator[bytes]:
    """Yield the events, `[DONE]` last; *options* are the request's stream_options."""
    head: dict[str, Any] = {
        "id": request_id(number, mind),
        "object": "chat.completion.chunk",
        "created": now,
        "model": reply.model,
    }
    if mind.family == "llamacpp":
        head["system_fingerprint"] = VERSION
    with_usage = options.get("include_usage") is True
    each = with_usage and options.get("continuous_usage_stats") is True
    spent = {"usage": usage(reply, mind)} if each else {}
    end = _end(reply, mind)
    for index in range(reply.choices):
        for place, delta in enumerate(_deltas(reply, mind)):
            first = _FIRST if place == 0 and mind.family == "vllm" else {}
            choice = _choice(delta, mind, index, place)
            yield _event({**head, "choices": [choice], **spent, **first})
    for index in range(reply.choices):
        last = _choice({}, mind, index, -1) | {"finish_reason": reply.finish}
        yield _event({**head, "choices": [last], **spent, **({} if with_usage else end)})
    if with_usage:
        yield _event({**head, "choices": [], "usage": usage(reply, mind), **end})
    yield b"data: [DONE]\n\n"


#: what vLLM's first chunk of a choice carries beside it
_FIRST = {"prompt_token_ids": None, "prompt_text": None}


def _end(reply: Reply, mind: Mind) -> dict[str, Any]:
    """What the very last chunk carries beside it."""
    match mind.family:
        case "vllm":
            return {"system_fingerprint": VERSION}
        case "sglang":
            return {}
        case "llamacpp":
            return {"timings": timings(reply)}


def _choice(delta: Mapping[str, Any], mind: Mind, index: int, place: int) -> dict[str, Any]:
    """One choice of a chunk; `place` counts the chunks, -1 is the last."""
    choice: dict[str, Any] = {"index": index, "delta": dict(delta), "finish_reason": None}
    match mind.family:
        case "vllm":
            choice["logprobs"] = None
            choice |= {"token_ids": None} if place != 0 else {}
            choice |= {"stop_reason": None} if place == -1 else {}
        case "sglang":
            # Why: its deltas always name the field, so that clients find it.
            choice["delta"] = {"reasoning_content": None, **choice["delta"]}
            choice |= {"logprobs": None, "matched_stop": None}
        case "llamacpp":
            pass
    return choice


def _deltas(reply: Reply, mind: Mind) -> Iterator[dict[str, Any]]:
    """The role, then reasoning, content and calls piece by piece."""
    yield {"role": "assistant", "content": None if mind.family == "llamacpp" else ""}
    texts = said(reply, mind)
    for field in (mind.field, "content"):
        for piece in _pieces(texts[field] or ""):
            yield {field: piece}
    for index, call in enumerate(reply.calls):
        yield from ({"tool_calls": [part]} for part in _parts(call, index))


def _parts(call: Call, index: int) -> Iterator[dict[str, Any]]:
    start = function(call) | {"arguments": ""}
    yield {"index": index, "id": call.id, "type": "function", "function": start}
    for piece in _pieces(call.arguments):
        yield {"index": index, "function": {"arguments": piece}}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]


def pieces_of(text: str) -> int:
    """Return in how many pieces *text* is streamed."""
    return -(-len(text) // _PIECE)


def _event(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"
