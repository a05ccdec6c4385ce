"""Carry out an order on this host: look at each step, do what is needed, take it back if it fails.

Killed anywhere, the next run, or the dead man, goes on from what is on the disk.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kimideploy.apply import runs
from kimideploy.apply.answers import Action, Entry, Looked, Result
from kimideploy.apply.clock import SystemClock
from kimideploy.apply.deadman import disarm
from kimideploy.apply.events import Began, Ended, Noted, Stepped, Tell
from kimideploy.apply.home import Home
from kimideploy.apply.interrupts import interrupts
from kimideploy.apply.journal import Journal, now
from kimideploy.apply.lock import held, holder
from kimideploy.apply.order import Order, catalog_of
from kimideploy.apply.release import (
    Release,
    current,
    next_number,
    pending,
    release,
    releases,
)
from kimideploy.apply.steps.base import Step, Work, program
from kimideploy.apply.steps.engine import EngineStep
from kimideploy.apply.steps.place import Place
from kimideploy.apply.steps.release import CheckStep, ReleaseStep, job_of
from kimideploy.apply.steps.secrets import SecretsStep
from kimideploy.apply.steps.trial import CurrentStep, PruneStep, ReadyStep, SmokeStep
from kimideploy.apply.steps.unit import START, UnitStep, back_to
from kimideploy.apply.steps.weights import WeightsStep
from kimideploy.apply.systemd import Systemd
from kimideploy.engines import complete
from kimideploy.errors import BusyError, EngineError, KimiError
from kimideploy.weights.manifest import COMMIT

STEPS: tuple[Step, ...] = (
    Place(),
    EngineStep(),
    WeightsStep(),
    SecretsStep(),
    ReleaseStep(),
    CheckStep(),
    UnitStep(),
    ReadyStep(),
    SmokeStep(),
    CurrentStep(),
    PruneStep(),
)
#: what a release that is here already still has to go through
_TRIAL = tuple(step for step in STEPS if not isinstance(step, (ReleaseStep, WeightsStep)))
#: what can be brought while another release serves
_PREPARATION = STEPS[: STEPS.index(next(s for s in STEPS if isinstance(s, WeightsStep))) + 1]
_INTERRUPTED, _BUG = 130, 70
_DEAD_MAN = "the dead man"


def look(home: Home, order: Order, number: int | None = None) -> tuple[Looked, ...]:
    """Return what carrying out *order* would change, step by step; nothing is changed.

    *number*: return to that release. Raises KimiError for what can be seen not to work.
    """
    work = _work(home, order, "", lambda _: None, number)
    return tuple(Looked(step.name, step.look(work)) for step in _steps(order, number))


def carry(home: Home, run: str, *, wait: float = 0, alone: bool = False) -> int:
    """Return the exit code of *run*, carried out and told in its file.

    *alone*: it is the dead man's, and nobody is asked for a word anew.
    """
    order = runs.order_of(home, run)
    number = runs.release_of(home, run)
    what = f"return to release {number}" if number is not None else _what(order)
    with runs.written_down(home, run) as tell, interrupts() as caught:
        tell(Began(run=run, what=what, who=order.who, host=socket.gethostname()))
        try:
            with held(home, who=order.who, why=what, run=run, wait=wait):
                caught.allow()
                work = _work(home, order, run, tell, number)
                work.alone = alone
                ended = _carried(
                    work, _steps(order, number), "apply" if number is None else "rollback"
                )
                caught.shield()
        except (KimiError, KeyboardInterrupt) as error:
            ended = _failed(error)
        tell(ended)
    return ended.code


def settle(home: Home) -> bool:
    """Finish a change that was left alone, or take it back; return whether there was one.

    This is what the dead man does. Somebody who sees to it is left alone.
    """
    found = holder(home)
    if found is not None and found.pid is not None:
        return False
    systemd = Systemd(home.scope)
    try:
        with held(home, who=found.who if found is not None else _DEAD_MAN, why="look"):
            on_trial = pending(home)
            if on_trial is None:
                disarm(home, systemd)
                return False
            try:
                order = release(home, on_trial.release).order()
            except (KimiError, OSError) as error:
                # Why so: what can't be read can't be proved, and the release before can serve.
                back_to(home, systemd, current(home))
                said = f"release {on_trial.release} can't be read: {error}"
                Journal(home).add(
                    Entry(at=now(), who=_DEAD_MAN, action="rollback", result="undone", said=said)
                )
                return True
    except BusyError:
        return False
    if found is not None and found.who != order.who:
        return False
    run = runs.begin(home, order, on_trial.release)
    # Why a unit of its own: it is seen, followed and broken off like any other change.
    words = [program(home), "host", "carry", run, "--alone"]
    systemd.detach(f"kimideploy-run-{run}", words)
    return True


def _carried(work: Work, steps: Sequence[Step], action: Action) -> Ended:
    journal = Journal(work.home)

    def note(result: Result, **more: object) -> None:
        release = work.release.number if work.release is not None else None
        entry = Entry(at=now(), who=work.order.who, action=action, result=result, run=work.run,
                      release=release)  # fmt: skip

        journal.add(msgspec.structs.replace(entry, **more))

    changed = False
    passed: list[Step] = []
    try:
        for step in steps:
            passed.append(step)
            changes = step.look(work)
            if not changes:
                work.tell(Stepped(step=step.name, state="unchanged"))
                continue
            if not changed and isinstance(step, Place):
                step.do(work)
            if not changed:
                note("began")
            changed = True
            work.tell(Stepped(step=step.name, state="doing", changes=changes))
            note("began", action="step", step=step.name)
            step.do(work)
            _verify(step, work)
            note("done", action="step", step=step.name)
            work.tell(Stepped(step=step.name, state="done", changes=changes))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        # Why all: whatever happens here, the release before must serve again.
        return _taken_back(work, passed, error, note)
    here = work.release
    if changed:
        note("done")
    if work.order.prepare:
        return Ended(result="done" if changed else "unchanged", weights=_folders(work))
    url = job_of(work).url if not work.plan.launches[work.order.node].headless else None
    return Ended(
        result="done" if changed else "unchanged",
        release=here.number if here is not None else None,
        serving=here.number if here is not None else None,
        url=url,
    )


def _folders(work: Work) -> tuple[str, ...]:
    """Return the folders of the store that the plan is served from."""
    local = work.plan.local
    if local is None:
        return ()
    # Why the parent: llama.cpp is given the first part of a GGUF.
    ways = (Path(local.path), *Path(local.path).parents)
    main = next((path for path in ways if COMMIT.fullmatch(path.name)), None)
    if main is None:
        return ()
    return (str(main), *([local.draft] if local.draft is not None else []))


def _verify(step: Step, work: Work) -> None:
    """Raise EngineError if a step that was done still finds something to do."""
    if isinstance(step, (CheckStep, ReadyStep)):
        return
    # Why not starting: whether it comes up is for the step after to judge.
    left = [change for change in step.look(work) if change.what != START]
    if left:
        raise EngineError(f"{step.name} was done, and is not as it is to be: {left[0].what}")


def _taken_back(work: Work, passed: list[Step], error: BaseException, note: object) -> Ended:
    """Undo what would harm the release before, and say what serves now."""
    if isinstance(error, OSError):
        error = EngineError(f"this host refused: {error.strerror or error} ({error.filename})")
    failed = _failed(error)
    if passed:
        work.tell(Stepped(step=passed[-1].name, state="failed"))
    undone = False
    # Why all and not only those that were done here: an earlier run, cut off, may have done them.
    for step in reversed(passed):
        try:
            if step.undo(work):
                undone = True
                work.tell(Stepped(step=step.name, state="undone"))
        except (KimiError, OSError) as other:
            work.tell(Noted(text=f"{step.name} could not be taken back: {other}"))
    with suppress(OSError):
        note("undone" if undone else "failed", said=failed.message)  # type: ignore[operator]
    here = current(work.home)
    is_up = work.systemd.show().is_up
    serving = here.number if here is not None and is_up else None
    rolled_back = undone and serving is not None

    return msgspec.structs.replace(
        failed, result="rolled-back" if rolled_back else "failed", serving=serving
    )


def _failed(error: BaseException) -> Ended:
    if isinstance(error, KimiError):
        return Ended(result="failed", code=error.exit_code, message=error.message, hint=error.hint)
    if isinstance(error, KeyboardInterrupt):
        return Ended(result="failed", code=_INTERRUPTED, message="it was told to end")
    traceback.print_exception(error)
    what = f"this is a bug of kimideploy: {type(error).__name__}: {error}"
    return Ended(
        result="failed", code=_BUG, message=what, hint="the journal of the run's unit has it all"
    )


def _steps(order: Order, number: int | None) -> tuple[Step, ...]:
    if order.prepare:
        return _PREPARATION
    return STEPS if number is None else _TRIAL


def _work(home: Home, order: Order, run: str, tell: Tell, number: int | None) -> Work:
    """Return what the steps work on: a release that is here where the same was asked before."""
    before = current(home)
    chosen = release(home, number) if number is not None else _same(home, order, before)
    catalog = catalog_of(order)
    if chosen is not None and before is not None and chosen.number == before.number:
        chosen = before
    return Work(
        home=home,
        systemd=Systemd(home.scope),
        order=order,
        catalog=catalog,
        tell=tell,
        clock=SystemClock(),
        run=run,
        # Why completed here: words, keys and paths of a unit are ours, whatever a plan's file says.
        plan=chosen.plan() if chosen is not None else complete(order.plan, catalog),
        previous=before,
        number=next_number(home),
        release=chosen if number is not None or chosen is not before else None,
    )


def _same(home: Home, order: Order, before: Release | None) -> Release | None:
    """Return the release that this very order made: the one on trial or begun, or the current."""
    newest = next(iter(releases(home)), None)
    for found in (newest, before):
        if found is not None and found.made.digest == order.digest:
            return found
    return None


def _what(order: Order) -> str:
    plan = order.plan
    verb = "prepare" if order.prepare else "serve"
    return f"{verb} {plan.served_name} ({plan.candidate.label})"
