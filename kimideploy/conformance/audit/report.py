"""Report: the fate of each field that matters."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict

AUDIT_SCHEMA = "kimideploy.audit/1"
What = Literal[
    "kept", "dropped", "renamed", "truncated", "changed", "moved", "merged", "added", "unknown"
]
Way = Literal["history", "request", "answer"]


class Fate(Strict, frozen=True, omit_defaults=True):
    """What became of a field. `breaks`: the model gets worse, or the loop ends, by it."""

    field: str
    what: What
    said: str
    way: Way = "history"
    breaks: bool = False


class Report(Strict, frozen=True, omit_defaults=True):
    """The outcome of an audit; `refusal` is how the upstream refused, where it did."""

    subject: str
    model: str
    requests: int
    steps: int
    fates: tuple[Fate, ...]
    #: steps of a loop that went to its end
    whole: int
    refusal: str | None = None
    #: of the command that was run
    exit_code: int | None = None
    schema: str = AUDIT_SCHEMA

    @property
    def ok(self) -> bool:
        """Whether the loop went to its end and nothing on the way breaks it."""
        ended = self.steps >= self.whole and not self.exit_code
        return ended and self.refusal is None and not any(fate.breaks for fate in self.fates)
