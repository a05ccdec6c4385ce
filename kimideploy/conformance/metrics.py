"""What an engine counts: requests and cache, under the names that each engine gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kimideploy.conformance.client import Client, Unreachable

_LINE = re.compile(
    r"^([a-z_]+:[a-z_]+)(?:\{[^}\n]*\})? ([0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$", re.MULTILINE
)
#: vLLM 0.32, SGLang 0.5 and llama.cpp; older names of vLLM last
_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_CACHE = ("vllm:kv_cache_usage_perc", "sglang:token_usage", "llamacpp:kv_cache_usage_ratio",
          "vllm:gpu_cache_usage_perc")  # fmt: skip
_MADE = ("vllm:generation_tokens_total", "sglang:generation_tokens_total",
         "llamacpp:tokens_predicted_total")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests decoded and waiting, the share of the KV cache in use, tokens ever made.

    None: the engine doesn't say.
    """

    running: float | None = None
    waiting: float | None = None
    cache: float | None = None
    made: float | None = None


def counted(client: Client, path: str, *, timeout: float) -> Counted:
    """Return what the engine at *client* counts at *path*; all None where nobody answers."""
    try:
        reply = client.get(path, timeout=timeout)
    except Unreachable:
        return Counted()
    return read(reply.body.decode("utf-8", "replace"))


def read(text: str) -> Counted:
    """Return what a page of metrics says, summed over its labels; of the cache, the fullest."""
    values: dict[str, list[float]] = {}
    for name, value in _LINE.findall(text):
        values.setdefault(name, []).append(float(value))

    def of(names: tuple[str, ...]) -> list[float]:
        return next((values[name] for name in names if name in values), [])

    running, waiting, cache, made = of(_RUNNING), of(_WAITING), of(_CACHE), of(_MADE)
    return Counted(
        running=sum(running) if running else None,
        waiting=sum(waiting) if waiting else None,
        cache=max(cache) if cache else None,
        made=sum(made) if made else None,
    )
