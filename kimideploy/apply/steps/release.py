"""The release: the plan and the unit, rendered and kept; and all that can be said without GPUs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from kimideploy.apply import preflight
from kimideploy.apply.events import Change, Checked, Noted
from kimideploy.apply.home import UNIT, USER
from kimideploy.apply.job import Job, job
from kimideploy.apply.journal import now
from kimideploy.apply.reach import closed_to, of_program
from kimideploy.apply.release import Made, store
from kimideploy.apply.steps.base import Step, Work, difference, program
from kimideploy.errors import EngineError
from kimideploy.facts.probe.folder import INCOMPLETE
from kimideploy.facts.probe.ports import holders
from kimideploy.facts.types import HostFacts
from kimideploy.render.files import Supervised, unit


class ReleaseStep(Step):
    """What is to run, as files that never change."""

    name = "release"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what the new release changes of the one before."""
        same = unit_of(work, work.previous.number) if work.previous is not None else None
        if work.previous is not None and _is_same(work, same):
            work.release = work.previous
            return ()
        if work.release is not None:
            return ()
        before = work.previous.unit if work.previous is not None else None
        return (
            Change(
                f"make release {work.number}",
                difference(UNIT, before, unit_of(work, work.number)),
            ),
        )

    def do(self, work: Work) -> None:
        """Write it."""
        made = Made(number=work.number, at=now(), who=work.order.who, digest=work.order.digest)
        text = unit_of(work, work.number)
        # Why without: the other node gives its weights this once.
        kept = msgspec.structs.replace(work.order, peer=None)
        work.release = store(work.home, made, kept, work.plan, text)


class CheckStep(Step):
    """Everything that can be known before the release before is stopped."""

    name = "checks"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return that it is to be checked, unless nothing changes."""
        if work.release is work.previous and work.release is not None:
            return ()
        return (Change("check the engine and its version, the port, the weights, the unit"),)

    def do(self, work: Work) -> None:
        """Raise what stands in the way."""
        what = job_of(work)
        checks = list(self._checks(work, what))
        for check in checks:
            work.tell(check)
        refused = preflight.refusal(checks)
        if refused is not None:
            raise refused
        self._verify(work)
        work.tell(Noted(text=_firewall(work)))

    def _checks(self, work: Work, what: Job) -> list[Checked]:
        state = work.home.state
        # Why here: a disk that is full in the middle would cost the release before its uptime.
        free = shutil.disk_usage(state).free
        return [*self._launchable(work, what), *preflight.judge_room(state, free)]

    def _launchable(self, work: Work, what: Job) -> list[Checked]:
        facts = preflight.look(what)
        if _ours(work, what.launch.port):
            facts = preflight.with_port_free(facts)
        checks = preflight.judge(what, facts)
        if what.rehearsal == "stand-in" or work.home.scope != "system":
            return list(checks)
        return [*checks, *preflight.judge_reach(USER, closed_to(USER, _needed(facts)))]

    def _verify(self, work: Work) -> None:
        """Raise EngineError if systemd has anything to say against the unit."""
        if work.release is None:
            return
        folder = Path(tempfile.mkdtemp(prefix="kimideploy-"))
        try:
            copy = folder / UNIT
            copy.write_text(work.release.unit, encoding="utf-8")
            said = work.systemd.verify(copy)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if said:
            raise EngineError(f"systemd does not take the unit: {said.splitlines()[0]}")


def job_of(work: Work) -> Job:
    """Return how this host's part of the plan is run, and how its endpoint is asked."""
    venv = work.venv
    return job(
        work.plan,
        work.catalog,
        node=work.order.node,
        # Why only then: what is looked at before it is made has no environment yet.
        venv=venv if venv is not None and venv.is_dir() else None,
        log=Path(os.devnull),
        ready_timeout=work.order.quiet,
        rehearsal=work.order.engine.rehearsal,
        skip=work.order.skip,
    )


def unit_of(work: Work, number: int) -> str:
    """Return the unit of this work's plan as release *number*."""
    home = work.home
    how = Supervised(
        words=(program(home), "host", "run", "--scope", home.scope, str(number)),
        venv=str(work.venv) if work.venv is not None else None,
        settings=str(home.settings / "engine.env"),
        quiet=job_of(work).quiet,
        rehearsal=work.order.engine.rehearsal is not None,
        user=home.scope == "user",
    )
    return unit(work.plan, work.order.node, how, work.catalog)


def _is_same(work: Work, same: str | None) -> bool:
    previous = work.previous
    return (
        previous is not None and previous.made.digest == work.order.digest and previous.unit == same
    )


def _needed(facts: HostFacts) -> list[tuple[Path, int]]:
    """Return what the engine's user must be able to run, and to read."""
    programs = [Path(one.path) for one in facts.programs or () if one.path is not None]
    needed = [pair for program in programs for pair in of_program(program)]
    if facts.weights is not None and facts.weights.exists:
        folder = Path(facts.weights.path)
        names = [name for name in facts.weights.sizes if not name.endswith(INCOMPLETE)]
        needed += [(folder, os.R_OK | os.X_OK), *((folder / name, os.R_OK) for name in names)]
    return needed


def _ours(work: Work, port: int) -> bool:
    """Whether the port is held by a process of our own unit."""
    group = work.systemd.show().said.get("ControlGroup", "")
    if not group:
        return False
    for pid in holders(port):
        try:
            found = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
        except OSError:
            continue
        if any(line.endswith(group) for line in found.splitlines()):
            return True
    return False


def _firewall(work: Work) -> str:
    launch = work.plan.launches[work.order.node]
    if work.plan.candidate.nodes > 1:
        return (
            "the nodes talk on ports without any key: let only the other nodes' addresses reach"
            " this one"
        )
    return f"only this host reaches {launch.host}:{launch.port}; no port needs to be opened"
