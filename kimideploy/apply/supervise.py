"""The main process of the unit: run the engine, and tell systemd the truth about it.

Starting lasts as long as the log brings news and no longer; ready means that the model is listed
and a token came back; afterwards a token now and then feeds the watchdog, as a wedged engine does
not end by itself (https://github.com/vllm-project/vllm/pull/54553).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kimideploy.apply import preflight
from kimideploy.apply.answers import Report
from kimideploy.apply.clock import Clock, SystemClock
from kimideploy.apply.events import Died, Event, Progress, Said
from kimideploy.apply.files import write
from kimideploy.apply.home import UNIT, Home
from kimideploy.apply.interrupts import interrupts
from kimideploy.apply.job import Job, environment, job
from kimideploy.apply.keys import handed_over
from kimideploy.apply.notify import OURS, Notifier
from kimideploy.apply.order import catalog_of
from kimideploy.apply.process import start_into
from kimideploy.apply.release import release
from kimideploy.apply.steps.base import venv_of
from kimideploy.apply.watch import Watch
from kimideploy.conformance.client import Client, Unreachable
from kimideploy.conformance.metrics import counted
from kimideploy.conformance.tokens import token
from kimideploy.doctor.case import Case
from kimideploy.doctor.checks.gpus import is_coming_up
from kimideploy.doctor.examine import examine
from kimideploy.errors import BusyError, EngineError, KimiError
from kimideploy.facts.local import inspect_local

#: sysexits.h: a wrong configuration; the unit is not started again after it
EX_CONFIG = 78
#: an engine that refuses its own words leaves so (argparse)
_USAGE = 2
#: seconds beyond the longest silence that systemd waits, and between two reports at most
_MARGIN, _OFTEN = 60.0, 1.0
#: seconds in which an engine that broke off an answer is seen to be dying
_DYING = 1.0
_TICK = 0.2
#: seconds that the fabric manager may need after a boot, a guess, and between two looks
_COMING_UP, _LOOK = 300.0, 3.0
#: a token is asked for this many times within what the watchdog allows, and may be late by this
#: share of it
_BEATS, _LATE = 10, 0.6


def of_release(home: Home, number: int) -> int:
    """Return the exit status of the unit that runs release *number* of this host."""
    try:
        found = release(home, number)
        order, plan = found.order(), found.plan()
        what = job(
            plan,
            catalog_of(order),
            node=order.node,
            venv=venv_of(home, order, plan),
            log=Path(f"journalctl -u {UNIT}"),
            ready_timeout=order.quiet,
            rehearsal=order.engine.rehearsal,
            skip=order.skip,
        )
    except KimiError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return EX_CONFIG
    return supervise(what, home, number)


def supervise(what: Job, home: Home, number: int, *, clock: Clock | None = None) -> int:
    """Return the exit status of the unit: 0 asked to end, 78 not to be tried again, else 5."""
    clock = clock or SystemClock()
    teller = Teller(what, home, number, Notifier(os.environ), clock)
    try:
        if what.rehearsal is None:
            _gate(what, clock)
        _run(what, home, teller, clock)
    except KeyboardInterrupt:
        teller.ended("it was asked to")
        return 0
    except KimiError as error:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint is not None:
            sys.stderr.write(f"hint: {error.hint}\n")
        teller.ended(error.message)
        # Why not for all: an engine that died, and a port that is taken, may do better next time.
        again = isinstance(error, (EngineError, BusyError)) and teller.status != _USAGE
        return EngineError.exit_code if again else EX_CONFIG
    return 0


def _gate(what: Job, clock: Clock) -> None:
    """Raise MachineError for GPUs that no engine can use; after a boot, once they are set up.

    Why here and not in ExecStartPre=: RestartPreventExitStatus= looks at the main process alone,
    and a dead GPU must not be hammered.
    """
    until, host = clock.now() + _COMING_UP, inspect_local(only=preflight.GATE_SOURCES)
    while is_coming_up(host.gpus) and clock.now() < until:
        print("waiting for the NVSwitch fabric", flush=True)  # noqa: T201  the journal reads it
        clock.sleep(_LOOK)
        host = inspect_local(only=preflight.GATE_SOURCES)
    case = Case(host, what.catalog, what.site, what.launch)
    report = examine(case, only=preflight.GATE, skip=what.skip)
    # Why not all: what can't be known of a GPU is no news at every start.
    checks = preflight.checked([one for one in report.checks if one.findings])
    for check in checks:
        print(f"{check.outcome}: {check.evidence}", flush=True)  # noqa: T201  the journal reads it
    refused = preflight.refusal(checks)
    if refused is not None:
        raise refused


def _run(what: Job, home: Home, teller: Teller, clock: Clock) -> None:
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    argv, key = handed_over(what, Path(given) if given else None, home.runtime)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    with interrupts() as caught, os.fdopen(reading, "rb", buffering=0) as log:
        process = start_into(
            argv, environment(what, _ours_left_out(os.environ), secret=False), writing
        )
        try:
            caught.allow()
            watch = Watch(what, process, log, teller.take, clock)
            teller.watch = watch
            client = Client(what.url, key=key)
            if not what.launch.headless:
                watch.until_ready(client, teller.each)
                teller.token_of(client)
            teller.ready()
            with _pulse(client, teller):
                watch.until_it_ends()
        except EngineError:
            teller.status = process.status
            raise
        finally:
            caught.shield()
            teller.notifier.stopping()
            process.end(clock)


def _ours_left_out(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OURS}


@dataclass
class Teller:
    """Passes the log on, keeps the report, and tells systemd how things are."""

    job: Job
    home: Home
    number: int
    notifier: Notifier
    clock: Clock
    watch: Watch | None = None
    #: how the engine's process ended, where it did
    status: int | None = None
    _report: Report = field(init=False)
    _moved: int = 0
    _told: float = -1e9
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin: nothing has moved, and starting may last as long as a silence may."""
        self._report = Report(
            release=self.number, pid=os.getpid(), state="loading", since=round(time.time(), 3)
        )
        self._extend()
        self._say()

    def take(self, event: Event) -> None:
        """Take in what the watch noticed."""
        match event:
            case Said(line=line):
                print(line, flush=True)  # noqa: T201  the journal reads it
                self._change(line=line)
            case Progress():
                self._change(progress=event)
            case Died():
                self._change(died=event)
            case _:
                pass

    def each(self) -> None:
        """Tell what is new, at every look while it loads."""
        now = self.clock.now()
        moved = self.watch.moved if self.watch is not None else 0
        if moved != self._moved and now - self._told >= _OFTEN:
            self._moved, self._told = moved, now
            self._change(moved=moved)
            self._extend()
            self.notifier.status(_said(self._report))
            self._say()

    def token_of(self, client: Client) -> None:
        """Return when a token came; raises EngineError if none comes."""
        self.notifier.extend(self.job.quiet + _MARGIN)
        failed: list[Unreachable] = []

        def ask() -> None:
            try:
                token(client, self.job.promise.model, timeout=self.job.quiet)
            except Unreachable as error:
                failed.append(error)

        # Why beside: an engine whose log nobody reads stops at a full pipe, and no token comes.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        while asking.is_alive():
            if self.watch is not None:
                self.watch.still_running()
            asking.join(_TICK)
        if failed:
            if self.watch is not None:
                # Why: an engine that broke off is most often about to die, and its log says why.
                self.watch.still_running(wait=_DYING)
            raise EngineError(f"the engine is healthy, and no token came: {failed[0]}")
        self._change(token=round(time.time(), 3))

    def beat(self, client: Client, before: float | None, patience: float) -> float | None:
        """Feed the watchdog if the engine still works; return how many tokens it ever made."""
        names = self.job.site.engine.metrics
        count = counted(client, names, timeout=5).made
        try:
            token(client, self.job.promise.model, timeout=patience)
        except Unreachable:
            # Why: a queue of long prompts keeps a question waiting, and the engine is well.
            after = counted(client, names, timeout=5).made
            if after is None or after == (count if count is not None else before):
                return after
            count = after
        self.notifier.alive()
        self._change(token=round(time.time(), 3))
        self._say()
        return count

    def ready(self) -> None:
        """The engine does its work from now on."""
        self._change(state="ready", progress=None)
        self._say()
        self.notifier.ready(_said(self._report))

    def ended(self, why: str) -> None:
        """It is over."""
        self._change(state="ended", why=why)
        self._say()

    def _extend(self) -> None:
        self.notifier.extend(self.job.quiet + _MARGIN)

    def _change(self, **fields: object) -> None:
        with self._lock:
            self._report = msgspec.structs.replace(self._report, **fields)

    def _say(self) -> None:
        # Why suppress: a full /run must not end the engine.
        with suppress(OSError), self._lock:
            self.home.runtime.mkdir(exist_ok=True)
            write(self.home.standing, msgspec.json.encode(self._report))


class _pulse:  # noqa: N801  a context
    """Asks for a token now and then, beside the one who reads the log."""

    def __init__(self, client: Client, teller: Teller) -> None:
        self._client, self._teller = client, teller
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _beat(self) -> None:
        within = self._teller.notifier.watchdog
        if within is None:
            return
        every, count = within / _BEATS, None
        while not self._over.wait(every):
            if self._teller.job.launch.headless:
                self._teller.notifier.alive()
            else:
                count = self._beaten(count, _LATE * within)

    def _beaten(self, count: float | None, every: float) -> float | None:
        try:
            return self._teller.beat(self._client, count, every)
        except Exception as error:  # noqa: BLE001
            # Why all: this thread must go on asking, or a healthy engine would be ended.
            print(f"the watchdog's question failed: {error!r}", flush=True)  # noqa: T201
            return count


def _said(report: Report) -> str:
    """One line for `systemctl status`."""
    if report.state == "ready":
        return "serving"
    progress = report.progress
    if progress is None:
        return "loading"
    far = f" {progress.done}/{progress.total}" if progress.total is not None else ""
    left = f", {progress.eta:.0f} s left" if progress.eta is not None else ""
    return f"{progress.stage}{far}{left}"
