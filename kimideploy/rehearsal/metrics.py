"""The engines' main metrics in Prometheus' text format, under their own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kimideploy.rehearsal.types import Mind, Reply

_SGLANG = ("num_running_reqs", "num_queue_reqs", "token_usage", "gen_throughput", "cache_hit_rate")
_LLAMACPP = ("requests_processing", "requests_deferred", "predicted_tokens_seconds")


@dataclass(slots=True)
class Counts:
    """What was served so far."""

    requests: int = 0
    prompt: int = 0
    generated: int = 0
    #: answers by the reason they ended
    finished: dict[str, int] = field(default_factory=dict)

    def add(self, reply: Reply) -> int:
        """Take a reply into account; return its number."""
        self.requests += 1
        self.prompt += reply.prompt_tokens
        self.generated += reply.completion_tokens
        self.finished[reply.finish] = self.finished.get(reply.finish, 0) + reply.choices
        return self.requests


def metrics(mind: Mind, counts: Counts) -> str:
    """Return the text of /metrics."""
    match mind.family:
        case "vllm":
            return _vllm(mind, counts)
        case "sglang":
            label = f'{{engine_type="unified",model_name="{mind.model}"}}'
            totals = {"prompt_tokens": counts.prompt, "generation_tokens": counts.generated}
            return _text("sglang", _SGLANG, totals | {"num_requests": counts.requests}, label)
        case "llamacpp":
            totals = {"prompt_tokens": counts.prompt, "tokens_predicted": counts.generated}
            return _text("llamacpp", _LLAMACPP, totals, "")


def _text(prefix: str, gauges: Iterable[str], totals: Mapping[str, int], label: str) -> str:
    lines = [line for name in gauges for line in _lines(f"{prefix}:{name}", "gauge", label, 0)]
    for name, value in totals.items():
        lines += _lines(f"{prefix}:{name}_total", "counter", label, value)
    return "\n".join(lines) + "\n"


def _vllm(mind: Mind, counts: Counts) -> str:
    label = f'{{engine="0",model_name="{mind.model}"}}'
    lines: list[str] = []
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        lines += _lines(f"vllm:{name}", "gauge", label, 0)
    lines += _lines("vllm:prompt_tokens_total", "counter", label, counts.prompt)
    lines += _lines("vllm:generation_tokens_total", "counter", label, counts.generated)
    lines.append("# TYPE vllm:request_success_total counter")
    for reason in ("stop", "length", "abort"):
        ended = counts.finished.get(reason, 0)
        if reason == "stop":
            ended += counts.finished.get("tool_calls", 0)
        named = label.replace(",", f',finished_reason="{reason}",', 1)
        lines.append(f"vllm:request_success_total{named} {float(ended)}")
    return "\n".join(lines) + "\n"


def _lines(name: str, kind: str, label: str, value: float) -> list[str]:
    return [f"# TYPE {name} {kind}", f"{name}{label} {float(value)}"]
