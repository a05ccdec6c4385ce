"""What must hold right before an engine is started, asked of the doctor's checks and of the host.

The doctor has been asked all of its checks before; a load may begin hours later, after a pull or a
boot, and what may have changed since is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from kimideploy.apply.events import Checked, Outcome
from kimideploy.apply.job import Job
from kimideploy.apply.reach import Closed
from kimideploy.doctor.aims import aims
from kimideploy.doctor.case import Case
from kimideploy.doctor.check import CHECKS
from kimideploy.doctor.examine import examine
from kimideploy.doctor.types import Examined
from kimideploy.errors import KimiError, MachineError
from kimideploy.facts.local import inspect_local
from kimideploy.facts.types import HostFacts
from kimideploy.quantities import MIB

#: the checks that are asked again before a launch
LAUNCH = ("command", "port", "engine", "engine-version", "weights")
#: the checks of GPUs that the main process of a unit asks at every start
GATE = (
    "gpu-count", "gpu-lost", "gpu-recovery", "gpu-rows", "gpu-ecc", "gpu-mig", "gpu-processes",
    "gpu-stale-memory", "gpu-persistence", "gpu-throttle", "pcie-width", "nvlink-uneven", "fabric",
)  # fmt: skip
#: what of the probe they need
_LAUNCH_SOURCES = ("cpu", "engines")
GATE_SOURCES = ("gpus",)
#: bytes that a change writes at most besides weights: events, journal, release, unit; a guess, high
_ROOM = 16 << 20
_OUTCOMES: dict[str, Outcome] = {
    "blocks": "fail",
    "warns": "warn",
    "notes": "warn",
    "pass": "pass",
    "unknown": "warn",
}


def look(job: Job) -> HostFacts:
    """Return what the launch of *job* would meet on this machine."""
    wish = aims(
        job.site,
        job.launch,
        venv=str(job.venv.expanduser().absolute()) if job.venv is not None else None,
        measure=False,
        imports=False,
    )
    venvs = [job.venv] if job.venv is not None else []
    return inspect_local(venvs=venvs, aims=wish, only=_LAUNCH_SOURCES)


def judge(job: Job, facts: HostFacts) -> tuple[Checked, ...]:
    """Return every check of the launch with its outcome; nothing is looked at here."""
    rehearsed = _rehearsed(job)
    case = Case(facts, job.catalog, job.site, job.launch)
    asked = [name for name in LAUNCH if name not in rehearsed]
    report = examine(case, only=asked, skip=job.skip)
    return (
        *checked(report.checks),
        *(
            Checked(name=name, outcome="skipped", evidence=f"rehearsal: {why}")
            for name, why in rehearsed.items()
            if why is not None
        ),
    )


def _rehearsed(job: Job) -> dict[str, str | None]:
    """Return the checks that a rehearsal does without, and why where that is worth a word."""
    match job.rehearsal:
        case "stand-in":
            return {
                # Why no word: a placeholder does no harm to a stand-in.
                "command": None,
                "engine": f"a stand-in takes the place of {job.launch.argv[0]}",
                "engine-version": "the stand-in speaks for the version the plan pins",
                "weights": "no weights are read",
            }
        case "vllm":
            return {"weights": "the nano Kimi takes their place"}
        case _:
            return {}


def checked(found: Sequence[Examined]) -> tuple[Checked, ...]:
    """Return each check as the event that is told, those for other plans left out."""
    events = []
    for one in found:
        if one.outcome == "other":
            continue
        for finding in one.findings or (None,):
            seen = finding.seen if finding is not None else one.reason or one.holds
            severity = finding.severity if finding is not None else None
            if one.outcome == "skipped" and severity != "fine":
                severity = None
            word = _OUTCOMES.get(
                "pass" if severity == "fine" else severity or one.outcome, "skipped"
            )
            fix = finding.fix if finding is not None else None
            events.append(Checked(name=one.name, outcome=word, evidence=seen, fix=fix))
    return tuple(events)


def refusal(checks: Sequence[Checked]) -> KimiError | None:
    """Return the first failed check as the error it is, or None."""
    for check in checks:
        if check.outcome == "fail":
            kind = CHECKS[check.name].refusal if check.name in CHECKS else MachineError
            return kind(check.evidence, hint=check.fix)
    return None


def with_port_free(facts: HostFacts) -> HostFacts:
    """Return *facts* as they will be when the release before is stopped: it holds the port."""
    free = tuple(
        msgspec.structs.replace(one, state="free", holder=None) for one in facts.listen or ()
    )
    return msgspec.structs.replace(facts, listen=free)


def judge_reach(user: str, closed: Sequence[Closed]) -> tuple[Checked, ...]:
    """Return a failure for what the service's user can't reach, none if it reaches all."""
    if not closed:
        return ()
    first = closed[0]
    where = f" ({first.at} is closed to it)" if first.at != first.path else ""
    more = f", nor {len(closed) - 1} more" if len(closed) > 1 else ""
    return (
        Checked(
            name="access",
            outcome="fail",
            evidence=f"the service's user {user} can't reach {first.path}{where}{more}",
            fix="let others read it, or keep it where they may: environments in /opt, weights in"
            " /srv",
        ),
    )


def judge_room(path: Path, free: int) -> tuple[Checked, ...]:
    """Return a failure where the state of this host has no room for a change."""
    if free >= _ROOM:
        return ()
    return (
        Checked(
            name="disk",
            outcome="fail",
            evidence=f"{path} has {free / MIB:.1f} MiB free, and a change must be written down",
            fix=f"free {_ROOM // MIB} MiB there; `kimideploy weights prune` on the host removes"
            " unfinished pulls",
        ),
    )
