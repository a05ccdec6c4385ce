"""What the doctor says: findings, check by check."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict

SCHEMA = "kimideploy.doctor/1"
#: blocks: a launch would be in vain, or harm · warns: it costs speed, quality or sleep · notes:
#: worth knowing · fine: as it should be, and worth showing
Severity = Literal["blocks", "warns", "notes", "fine"]
#: unknown: the machine did not say, with the reason · other: the check is for other plans ·
#: skipped: the operator said so
Outcome = Literal["pass", "blocks", "warns", "notes", "unknown", "other", "skipped"]
#: what --fix can do; kimideploy/apply/mend.py has how
Remedy = Literal["numa-balancing", "persistence", "unit-limits", "shm-size"]


class Finding(Strict, frozen=True, omit_defaults=True):
    """One thing that was seen, and a command or change that helps."""

    seen: str
    fix: str | None = None
    #: None: as the check has it
    severity: Severity | None = None
    remedy: Remedy | None = None


class Examined(Strict, frozen=True, omit_defaults=True):
    """What a check came to. `reason` says why it is unknown, or for other plans, or skipped."""

    name: str
    outcome: Outcome
    holds: str
    why: str
    findings: tuple[Finding, ...] = ()
    link: str | None = None
    reason: str | None = None


class Report(Strict, frozen=True):
    """All checks of one machine against one plan, or against none."""

    host: str | None
    plan: str | None
    checks: tuple[Examined, ...]
    schema: str = SCHEMA

    @property
    def blocked(self) -> tuple[Examined, ...]:
        """The checks that say a launch would be in vain."""
        return self.of("blocks")

    def of(self, outcome: Outcome) -> tuple[Examined, ...]:
        """The checks that came to *outcome*."""
        return tuple(check for check in self.checks if check.outcome == outcome)
