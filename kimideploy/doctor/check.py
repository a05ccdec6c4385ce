"""What a check is, and the table of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kimideploy.doctor.case import Case
from kimideploy.doctor.types import Finding, Severity
from kimideploy.errors import KimiError, MachineError

Judge = Callable[[Case], Iterable[Finding]]


#: of a scope that adds nothing in words to another one
_EVERY = "every plan"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which cases a check is for, in words and as a test."""

    words: str
    test: Callable[[Case], bool]

    def __and__(self, other: Scope) -> Scope:
        """Both must hold."""
        words = [scope.words for scope in (self, other) if scope.words != _EVERY]
        return Scope(", ".join(words) or _EVERY, lambda case: self.test(case) and other.test(case))


@dataclass(frozen=True, slots=True)
class Check:
    """A named check: when it is asked, what it says, and why that matters."""

    name: str
    severity: Severity
    holds: str
    why: str
    scope: Scope
    judge: Judge
    link: str | None
    #: how a launch is refused by it
    refusal: type[KimiError]


CHECKS: dict[str, Check] = {}

ANY = Scope("every machine", lambda _: True)
PLANNED = Scope(_EVERY, lambda case: case.site is not None)
GPUS = Scope("plans that use GPUs", lambda case: case.wanted > 0)
SEVERAL_GPUS = Scope("plans over several GPUs of a node", lambda case: case.wanted > 1)
NVIDIA = Scope(
    "plans on NVIDIA's GPUs",
    lambda case: case.wanted > 0 and not (case.site is not None and case.site.amd)
    and (case.facts.driver is None or case.facts.driver.source != "rocm-smi"),
)  # fmt: skip
NODES = Scope(
    "plans over several nodes",
    lambda case: case.site is not None and case.site.plan.candidate.nodes > 1,
)
OFFLOADED = Scope(
    "plans with experts in host memory",
    lambda case: case.offloads,
)
PYTHON = Scope(
    "engines in Python",
    lambda case: case.site is not None and case.site.engine.id != "llamacpp",
)
BY_HAND = Scope("engines that no unit of ours runs", lambda case: not case.unit)


def engine(*names: str) -> Scope:
    """Return the scope of plans with one of these engines."""
    return Scope(
        f"plans with {' or '.join(names)}",
        lambda case: case.site is not None and case.site.engine.id in names,
    )


def check(
    name: str,
    severity: Severity,
    *,
    why: str,
    scope: Scope = ANY,
    link: str | None = None,
    refusal: type[KimiError] = MachineError,
) -> Callable[[Judge], Judge]:
    """Put a function into the table of checks; the first line of its docstring is what holds."""

    def register(judge: Judge) -> Judge:
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        holds = (inspect.getdoc(judge) or "").partition("\n")[0].rstrip(".")
        CHECKS[name] = Check(name, severity, holds, why, scope, judge, link, refusal)
        return judge

    return register
