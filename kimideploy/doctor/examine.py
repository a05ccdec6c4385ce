"""Ask the checks: one report for a machine and a plan."""

from __future__ import annotations

from collections.abc import Collection

from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import CHECKS, Check
from kimideploy.doctor.checks import ORDER
from kimideploy.doctor.types import Examined, Finding, Report, Severity
from kimideploy.errors import KimiError, RequestError
from kimideploy.planning.suggest import closest
from kimideploy.planning.types import NoFit

_ORDER: tuple[Severity, ...] = ("blocks", "warns", "notes", "fine")
#: every check at once, for --skip-check
ALL = "all"


def examine(case: Case, *, only: Collection[str] = (), skip: Collection[str] = ()) -> Report:
    """Return what every check says, in the order of the table; *only* and *skip* are names."""
    candidate = case.site.plan.candidate.label if case.site is not None else None
    asked = [one for one in table() if not only or one.name in only]
    return Report(
        host=case.facts.hostname,
        plan=candidate,
        checks=tuple(_ask(one, case, skip) for one in asked),
    )


def table() -> list[Check]:
    """Return all checks in the order in which they are told: what is cheap to know first."""
    places = {module.__name__: at for at, module in enumerate(ORDER)}
    return sorted(CHECKS.values(), key=lambda one: places[one.judge.__module__])


def refusal(report: Report) -> KimiError | None:
    """Return the first check that blocks as the error it is, or None."""
    for one in report.blocked:
        worst = next(f for f in one.findings if (f.severity or "blocks") == "blocks")
        kind = CHECKS[one.name].refusal if one.name in CHECKS else RequestError
        return kind(worst.seen, hint=worst.fix)
    return None


def known_names(names: Collection[str], *, skipping: bool = False) -> None:
    """Raise RequestError for a name that is no check's; all of them can be skipped by one."""
    for name in names:
        if name not in CHECKS and name != "fit" and not (skipping and name == ALL):
            raise RequestError(
                f"no check is called {name!r}{closest(name, CHECKS)}",
                hint="`kimideploy doctor --list` shows them",
            )


def no_fit(found: NoFit) -> Examined:
    """Return the finding that there is no plan for this machine."""
    ways = "; ".join(" ".join(way.flags) or way.change for way in found.ways_out[:3])
    return Examined(
        name="fit",
        outcome="blocks",
        holds="A plan fits this machine",
        why="nothing of the family runs here as it was asked for",
        findings=(Finding(found.reason, ways or None),),
    )


def _ask(one: Check, case: Case, skip: Collection[str]) -> Examined:
    def said(
        outcome: str, findings: tuple[Finding, ...] = (), reason: str | None = None
    ) -> Examined:
        return Examined(
            name=one.name,
            outcome=outcome,  # type: ignore[arg-type]
            holds=one.holds,
            why=one.why,
            findings=findings,
            link=one.link,
            reason=reason,
        )

    if not one.scope.test(case):
        return said("other", reason=f"for {one.scope.words}")
    found: list[Finding] = []
    unseen: Unseen | None = None
    try:
        found.extend(one.judge(case))
    except Unseen as error:
        unseen = error
    # Why first: what was seen is no less true for what could not be.
    findings = tuple(found)
    if not findings:
        return said("unknown", reason=str(unseen)) if unseen is not None else said("pass")
    severities = {finding.severity or one.severity for finding in findings}
    worst = next(severity for severity in _ORDER if severity in severities)
    if worst == "fine":
        return said("pass", findings)
    if one.name in skip or ALL in skip:
        return said("skipped", findings, reason=f"it {worst}, and is skipped as it was asked for")
    return said(worst, findings)
