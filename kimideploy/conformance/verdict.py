"""Verdict: what an endpoint proved, check by check."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict

VERDICT_SCHEMA = "kimideploy.verdict/2"
Outcome = Literal["pass", "fail", "not-applicable"]


class Seen(Strict, frozen=True, omit_defaults=True):
    """One request behind a check, and how it was answered; both shortened, neither holds a key."""

    name: str
    request: str
    answer: str


class Check(Strict, frozen=True, omit_defaults=True):
    """One promise of an endpoint: whether it was kept, what was seen, why not and what helps."""

    name: str
    outcome: Outcome
    evidence: str
    cause: str | None = None
    fix: str | None = None
    link: str | None = None
    seen: tuple[Seen, ...] = ()


class Speed(Strict, frozen=True, omit_defaults=True):
    """Of the streamed answers: seconds to the first text, and tokens a second after it."""

    answers: int
    first_p50: float
    first_p95: float
    rate_p50: float | None = None
    rate_p95: float | None = None


class Verdict(Strict, frozen=True, omit_defaults=True):
    """The outcome of conformance for one endpoint. `seed` drew the code words of the run."""

    url: str
    model: str
    checks: tuple[Check, ...]
    suite: str = "quick"
    seed: int = 0
    speed: Speed | None = None
    schema: str = VERDICT_SCHEMA

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.broken

    @property
    def kept(self) -> int:
        """How many promises were kept."""
        return sum(check.outcome == "pass" for check in self.checks)

    @property
    def broken(self) -> int:
        """How many promises were broken."""
        return sum(check.outcome == "fail" for check in self.checks)

    @property
    def score(self) -> float | None:
        """The share of promises kept, of those that apply; None where none does."""
        judged = self.kept + self.broken
        return self.kept / judged if judged else None
