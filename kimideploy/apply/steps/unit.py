"""The unit: installed, enabled and started in place of the release before, on trial."""

from __future__ import annotations

from pathlib import Path

from kimideploy.apply import deadman
from kimideploy.apply.answers import Pending
from kimideploy.apply.events import Change
from kimideploy.apply.files import remove, text, write
from kimideploy.apply.home import UNIT, Home
from kimideploy.apply.journal import now
from kimideploy.apply.release import Release, pending, set_pending
from kimideploy.apply.steps.base import Step, Work, difference
from kimideploy.apply.systemd import State, Systemd
from kimideploy.errors import KimiError, MachineError

TARGET = "kimideploy.target"
START = "start it"
_TARGET = """\
[Unit]
Description=This node's share of a model that several nodes serve
Wants=kimideploy.service
After=kimideploy.service

[Install]
WantedBy={wanted}
"""


class UnitStep(Step):
    """The release before is stopped only now. Undone: it is put back and started again."""

    name = "unit"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return how the unit on the host differs, and whether it runs and is enabled."""
        if work.release is None:
            return (Change("install, enable and start the unit"),)
        changes = []
        diff = difference(UNIT, text(work.home.unit), work.release.unit)
        if diff is not None:
            changes.append(Change(f"write {work.home.unit}", diff))
        state = work.systemd.show()
        if diff is None and state.said.get("NeedDaemonReload") == "yes":
            changes.append(Change("have systemd read the unit again"))
        if not state.is_enabled:
            changes.append(Change("enable it, so that a boot starts it"))
        if not state.is_up:
            changes.append(Change(START))
        elif diff is not None or _runs_another(state, work.release):
            changes.append(Change("restart it"))
        return tuple(changes)

    def do(self, work: Work) -> None:
        """Install, enable and start it; from here on the release is on trial."""
        if work.release is None:
            raise MachineError("there is no release to start")
        home, systemd = work.home, work.systemd
        before = text(home.unit)
        state = systemd.show()
        restart = (
            before != work.release.unit or not state.is_up or _runs_another(state, work.release)
        )
        if restart:
            previous = work.previous.number if work.previous is not None else None
            wait = work.order.confirm
            # Why armed first: a trial without its dead man could be left alone for good.
            deadman.arm(home, systemd, work.order.dead_man)
            set_pending(
                home,
                Pending(
                    release=work.release.number,
                    previous=previous if previous != work.release.number else None,
                    run=work.run,
                    until=now() + wait if wait is not None else None,
                ),
            )
        if work.plan.candidate.nodes > 1:
            wanted = "default.target" if home.scope == "user" else "multi-user.target"
            write(home.units / TARGET, _TARGET.format(wanted=wanted).encode())
        if before != work.release.unit:
            write(home.unit, work.release.unit.encode())
        systemd.reload()
        systemd.enable(UNIT)
        if restart:
            systemd.stop()
            systemd.start()

    def undo(self, work: Work) -> bool:
        """Have the release before run again; without one, nothing runs."""
        if pending(work.home) is None:
            return False
        back(work)
        return True


def _runs_another(state: State, wanted: Release) -> bool:
    """Whether what runs is another release than the unit's file says: a change was cut off there.

    Asked of the process itself, as systemd tells the words of the file that it read last.
    """
    try:
        words = Path(f"/proc/{state.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    # … host run --scope SCOPE NUMBER, see `release.unit_of`
    return words[-5:-2] == [b"host", b"run", b"--scope"] and words[-1] != b"%d" % wanted.number


def back(work: Work) -> None:
    """Return to the release before: its unit is on the disk and started, or none is.

    A release that was only started again has nothing before it, and is left to systemd.
    """
    if work.previous is not None and work.previous is work.release:
        _over(work.home, work.systemd)
    else:
        back_to(work.home, work.systemd, work.previous)


def back_to(home: Home, systemd: Systemd, previous: Release | None) -> None:
    """Have *previous* run and nothing on trial; None: nothing runs."""
    if previous is None:
        systemd.stop()
        systemd.disable(UNIT)
        remove(home.unit)
        systemd.reload()
    else:
        # Why before stopping: on a full disk this fails, and then nothing was harmed.
        if text(home.unit) != previous.unit:
            write(home.unit, previous.unit.encode())
        systemd.stop()
        systemd.reload()
        systemd.enable(UNIT)
        systemd.start()
    _over(home, systemd)


def _over(home: Home, systemd: Systemd) -> None:
    """Have nothing on trial."""
    set_pending(home, None)
    try:
        deadman.disarm(home, systemd)
    except KimiError:
        # Why: without something on trial it does nothing; what failed before is the news.
        return
