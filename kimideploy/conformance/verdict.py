"""Verdict: what an endpoint proved, check by check."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict

VERDICT_SCHEMA = "kimideploy.verdict/1"


class Check(Strict, frozen=True):
    """One promise of an endpoint: whether it was kept, what was seen, why not and what helps."""

    name: str
    outcome: Literal["pass", "fail", "not-applicable"]
    evidence: str
    cause: str | None = None
    fix: str | None = None


class Verdict(Strict, frozen=True):
    """The outcome of conformance for one endpoint."""

    url: str
    model: str
    checks: tuple[Check, ...]
    schema: str = VERDICT_SCHEMA

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return all(check.outcome != "fail" for check in self.checks)
