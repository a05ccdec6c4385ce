"""The trial: wait until the unit is ready, ask the endpoint, and make the release the current."""

from __future__ import annotations

import time

import msgspec

from kimideploy.apply import deadman
from kimideploy.apply.answers import Report
from kimideploy.apply.events import Asking, Awaiting, Change, Died, Judged, Noted, Ready, Said
from kimideploy.apply.files import link
from kimideploy.apply.journal import now
from kimideploy.apply.keys import key_of
from kimideploy.apply.release import (
    Release,
    current,
    make_current,
    pending,
    releases,
    remove,
    set_pending,
)
from kimideploy.apply.report import report
from kimideploy.apply.steps.base import Step, Work
from kimideploy.apply.steps.release import job_of
from kimideploy.apply.systemd import State
from kimideploy.conformance.client import Client
from kimideploy.conformance.run import prove
from kimideploy.errors import EngineError, KimiError

#: seconds between looks, and beyond the longest silence until we do not believe in it any more
_TICK, _MARGIN = 0.5, 180.0


class ReadyStep(Step):
    """Waits while loading moves. Undone with the unit."""

    name = "ready"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return that it is to be waited for, if something is on trial."""
        settled = pending(work.home) is None and not _fresh(work)
        if settled and work.systemd.show().active == "active":
            return ()
        return (Change("wait until it is ready"),)

    def do(self, work: Work) -> None:
        """Return when the unit is active; raises EngineError when it fails, or nothing moves."""
        job, clock = job_of(work), work.clock
        began = since = clock.now()
        moved, shown = -1, Report(release=-1, pid=0, state="loading", since=0)
        while True:
            state, said = work.systemd.show(), report(work.home)
            said = said if said is not None and said.release == _number(work) else None
            if said is not None:
                if said.moved != moved:
                    moved, since = said.moved, clock.now()
                _tell(work, said, shown)
                shown = said
            if state.active == "active" and said is not None and said.state == "ready":
                work.tell(Ready(url=job.url, model=job.promise.model, seconds=clock.now() - began))
                return
            _fail_if_over(state, said)
            if clock.now() - since > job.quiet + _MARGIN:
                raise EngineError(
                    f"it did not become ready: nothing moved for {job.quiet + _MARGIN:.0f} s",
                    hint="kimideploy logs shows what it said last",
                )
            clock.sleep(_TICK)


class SmokeStep(Step):
    """Asks the endpoint what it promises. Undone with the unit."""

    name = "smoke checks"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return that it is to be asked, if something is on trial."""
        on_trial = pending(work.home)
        if on_trial is None:
            return (Change("ask the quick suite of `verify`"),) if _fresh(work) else ()
        return () if on_trial.proved else (Change("ask the quick suite of `verify`"),)

    def do(self, work: Work) -> None:
        """Raise EngineError if the endpoint breaks a promise."""
        job = job_of(work)
        if not job.launch.headless:
            verdict = prove(
                Client(job.url, key=key_of(job)),
                job.promise,
                lambda request, pieces: work.tell(Asking(request=request, pieces=pieces)),
            )
            for check in verdict.checks:
                work.tell(Judged(check=check))
            if not verdict.ok:
                failed = next(check for check in verdict.checks if check.outcome == "fail")
                raise EngineError(
                    f"the endpoint breaks a promise: {failed.name}: {failed.evidence}",
                    hint=failed.fix,
                )
        on_trial = pending(work.home)
        if on_trial is not None:
            set_pending(work.home, msgspec.structs.replace(on_trial, proved=True))


class CurrentStep(Step):
    """The release is the current one, and nothing is on trial any more."""

    name = "switch"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what the link is to lead to."""
        here = current(work.home)
        if here is not None and here.number == _number(work) and pending(work.home) is None:
            return (Change("call the dead man off"),) if deadman.is_armed(work.home) else ()
        return (Change(f"make release {_number(work)} the current one"),)

    def do(self, work: Work) -> None:
        """Wait for the word that the other nodes are well, too, and switch."""
        _wait_for_word(work)
        if work.release is None:
            raise EngineError("there is no release to switch to")
        make_current(work.home, work.release, now())
        set_pending(work.home, None)
        try:
            deadman.disarm(work.home, work.systemd)
        except KimiError as error:
            # Why no failure: the release serves, and the dead man goes by himself then.
            work.tell(Noted(text=f"the dead man is not called off yet: {error.message}"))

    def undo(self, work: Work) -> bool:
        """Have the release before be the current one again, if the switch was not yet over."""
        here = current(work.home)
        if pending(work.home) is None or work.previous is None or here is None:
            return False
        if here.number != work.previous.number:
            link(work.home.current, f"releases/{work.previous.number}")
        return False


class PruneStep(Step):
    """Old releases go; the newest ones stay to roll back to."""

    name = "prune"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return which releases are old."""
        return tuple(Change(f"remove release {one.number}") for one in self._old(work))

    def do(self, work: Work) -> None:
        """Remove them."""
        for one in self._old(work):
            remove(one)

    def _old(self, work: Work) -> list[Release]:
        here = _number(work)
        others = [one for one in releases(work.home) if one.number != here]
        previous = work.previous.number if work.previous is not None else None
        kept = [one for one in others if one.is_proved][: work.order.keep]
        numbers = {one.number for one in kept} | {previous}
        return [one for one in others if one.number not in numbers and one.number < here]


def _number(work: Work) -> int:
    return work.release.number if work.release is not None else work.number


def _fresh(work: Work) -> bool:
    """Whether a release will be made that is not there yet."""
    return work.release is None


def _tell(work: Work, said: Report, shown: Report) -> None:
    if said.line is not None and said.line != shown.line:
        work.tell(Said(line=said.line))
    if said.progress is not None and said.progress != shown.progress:
        work.tell(said.progress)
    if said.died is not None and said.died != shown.died:
        work.tell(said.died)


def _fail_if_over(state: State, said: Report | None) -> None:
    again = state.sub == "auto-restart" or state.restarts > 0
    if state.is_queued or (state.active not in ("failed", "inactive") and not again):
        return
    died: Died | None = said.died if said is not None else None
    why = (said.why if said is not None else None) or _result(state)
    raise EngineError(
        f"the engine did not come up: {why}",
        hint=(died.fix if died is not None else None) or "kimideploy logs shows all it said",
    )


def _result(state: State) -> str:
    said = state.said
    return f"{said.get('Result', 'failed')}, exit status {said.get('ExecMainStatus', '?')}"


def _wait_for_word(work: Work) -> None:
    """Return when the other nodes are known to be well; raises EngineError if no word comes."""
    on_trial = pending(work.home)
    if on_trial is None or on_trial.until is None:
        return
    if on_trial.run != work.run and work.order.confirm is not None and not work.alone:
        # Why anew: the word is asked for this run, whoever began the trial.
        until = now() + work.order.confirm
        on_trial = msgspec.structs.replace(on_trial, run=work.run, until=until)
        set_pending(work.home, on_trial)
    work.tell(Awaiting(run=work.run, until=on_trial.until or 0, nodes=work.plan.candidate.nodes))
    while (found := pending(work.home)) is not None and found.until is not None:
        if time.time() > found.until:
            raise EngineError(
                "nobody confirmed it: the other nodes did not come up, or whoever watched is gone",
                hint="kimideploy serve with the same hosts tries again",
            )
        work.clock.sleep(_TICK)
