"""What a guard did, as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kimideploy.guard.contract import Outcome
from kimideploy.guard.memory import Memory

_HELP = {
    "requests_total": ("counter", "requests by path and status"),
    "in_flight": ("gauge", "requests under way"),
    "reasoning_mapped_total": ("counter", "messages whose reasoning was moved to another field"),
    "reasoning_repaired_total": ("counter", "messages whose lost reasoning was given back"),
    "reasoning_lost_total": ("counter", "tool calls of the history that had no reasoning"),
    "ids_renamed_total": ("counter", "tool ids that were not the model's own"),
    "memory_bytes": ("gauge", "bytes of thoughts that are remembered"),
    "memory_entries": ("gauge", "thoughts that are remembered"),
}


@dataclass(slots=True)
class Counts:
    """Sums since the start."""

    requests: dict[tuple[str, int], int] = field(default_factory=dict)
    in_flight: int = 0
    mapped: int = 0
    repaired: int = 0
    lost: int = 0
    renamed: int = 0

    def answered(self, kind: str, status: int) -> None:
        """Count an answer."""
        self.requests[kind, status] = self.requests.get((kind, status), 0) + 1

    def prepared(self, outcome: Outcome) -> None:
        """Count what was done to a request."""
        self.mapped += outcome.mapped
        self.repaired += outcome.repaired
        self.lost += outcome.lost
        self.renamed += outcome.renamed

    def text(self, memory: Memory) -> str:
        """Return the page."""
        values: dict[str, list[tuple[str, int]]] = {
            "requests_total": [
                (f'{{path="{kind}",status="{status}"}}', count)
                for (kind, status), count in sorted(self.requests.items())
            ],
            "in_flight": [("", self.in_flight)],
            "reasoning_mapped_total": [("", self.mapped)],
            "reasoning_repaired_total": [("", self.repaired)],
            "reasoning_lost_total": [("", self.lost)],
            "ids_renamed_total": [("", self.renamed)],
            "memory_bytes": [("", memory.size)],
            "memory_entries": [("", len(memory))],
        }
        lines: list[str] = []
        for name, (kind, about) in _HELP.items():
            whole = f"kimideploy_guard_{name}"
            lines += [f"# HELP {whole} {about}", f"# TYPE {whole} {kind}"]
            lines += [f"{whole}{labels} {value}" for labels, value in values[name]]
        return "\n".join(lines) + "\n"
