"""Serve a plan on this machine: check, launch, follow, wait until ready, ask, stay, end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from kimideploy.apply import preflight
from kimideploy.apply.clock import Clock, SystemClock
from kimideploy.apply.events import (
    Asking,
    Checked,
    Died,
    Event,
    Judged,
    Noted,
    Planned,
    Ready,
    Said,
    Serving,
    Started,
    Stopped,
    Stopping,
)
from kimideploy.apply.follow import Lines, Story
from kimideploy.apply.interrupts import Interrupts, interrupts
from kimideploy.apply.job import Job, environment, key
from kimideploy.apply.look import look, look_at_port
from kimideploy.apply.ports import holders, program
from kimideploy.apply.process import Process, start
from kimideploy.apply.ready import Standing, standing
from kimideploy.conformance.client import Client
from kimideploy.conformance.run import run_smoke
from kimideploy.conformance.snippet import snippet
from kimideploy.conformance.verdict import Verdict
from kimideploy.errors import BusyError, EngineError, MachineError
from kimideploy.facts.local import inspect_local

Tell = Callable[[Event], None]

#: seconds between looks at the log, and between questions whether the engine is ready
_TICK, _ASK = 0.2, 1.0
#: seconds in which an engine that broke off an answer is seen to be dying
_DYING = 1.0
#: lines shown of an engine that died
_SHOWN = 12
_CHUNK = 1 << 18
_UNASKED = "https://github.com/vllm-project/vllm/issues/48966"


def serve(job: Job, tell: Tell, *, clock: Clock | None = None) -> Verdict:
    """Return the verdict of the smoke requests.

    With a good verdict and without `once` it stays, and ends by an exception: KeyboardInterrupt
    for Ctrl-C, SIGTERM and SIGHUP, EngineError for an engine that ends unasked. A refusal of the
    preflight is raised as what it is. However it ends, nothing the engine started is left.
    """
    clock = clock if clock is not None else SystemClock()
    plan = job.site.plan
    label = plan.candidate.label
    tell(Planned(model=plan.served_name, candidate=label, rehearsal=job.rehearsal))
    for notice in (*job.notes, *(f"{n.text} {n.link or ''}".rstrip() for n in plan.warnings)):
        tell(Noted(text=notice))
    checks = _preflight(job)
    for check in checks:
        tell(check)
    refusal = preflight.refusal(checks)
    if refusal is not None:
        raise refusal
    env, secret = environment(job, os.environ), key(job)
    with interrupts() as caught, _claimed(job):
        _rotate(job.log)
        process = start(job.argv, env, job.log)
        try:
            caught.allow()
            tell(Started(pid=process.pid, argv=job.argv, env=job.launch.env, log=str(job.log)))
            with job.log.open("rb") as log:
                watch = _Watch(job, process, log, tell, clock)
                return _carry_out(job, watch, Client(job.url, key=secret), tell)
        finally:
            caught.shield()
            _end(process, tell, clock, caught)


def ready_but_for_weights(job: Job) -> None:
    """Raise what would refuse *job* whatever its weights are: its port, its engine, its version."""
    whatever = [c for c in _preflight(job) if c.name in ("port", "engine", "version")]
    refusal = preflight.refusal(whatever)
    if refusal is not None:
        raise refusal


def _preflight(job: Job) -> tuple[Checked, ...]:
    if job.rehearsal == "stand-in":
        port = look_at_port(job.launch.host, job.launch.port)
        return preflight.rehearsed(job.launch, port)
    host = inspect_local(venvs=[job.venv] if job.venv is not None else [])
    seen = look(job.site, job.launch, host, job.path)
    checks = preflight.judge(job.site, job.launch, seen)
    return preflight.without_weights(checks) if job.rehearsal is not None else checks


def _carry_out(job: Job, watch: _Watch, client: Client, tell: Tell) -> Verdict:
    if job.launch.headless:
        tell(Noted(text="this node has no endpoint: node 0 has it, and is ready when all are"))
        watch.until_it_ends()
    watch.until_ready(client)
    tell(Ready(url=job.url, model=job.promise.model, seconds=watch.age))
    verdict = run_smoke(
        client,
        job.promise,
        lambda request, pieces: tell(Asking(request=request, pieces=pieces)),
    )
    watch.still_running(wait=0 if verdict.ok else _DYING)
    for check in verdict.checks:
        tell(Judged(check=check))
    if not verdict.ok:
        return verdict
    field = job.site.engine.reasoning_field
    tell(
        Serving(
            url=job.url,
            model=job.promise.model,
            reasoning_field=field,
            snippet=snippet(
                job.url,
                job.promise.model,
                field,
                max_tokens=job.max_tokens,
                needs_key=bool(job.launch.secrets),
            ),
        )
    )
    if job.once:
        return verdict
    return watch.until_it_ends()


class _Watch:
    """Reads the log of a running engine, and notices its end."""

    def __init__(self, job: Job, process: Process, log: BinaryIO, tell: Tell, clock: Clock) -> None:
        self._job, self._process, self._log, self._tell, self._clock = (
            job,
            process,
            log,
            tell,
            clock,
        )
        self._lines, self._story = Lines(), Story(job.site.engine.log)
        self._began = clock.now()

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._clock.now() - self._began

    def tick(self) -> None:
        """Take in what the log has got since the last time."""
        # Why one moment for all: what is read at once says nothing about the time between.
        fresh, now = False, self._clock.now()
        while chunk := self._log.read(_CHUNK):
            fresh = True
            for line in self._lines.feed(chunk):
                self._tell(Said(line=line))
                self._report(self._story.read(line, now))
        if not fresh and self._lines.rest:
            # Why only now: a bar is left without an end of line, and this one is not growing.
            self._report(self._story.glance(self._lines.rest, now))

    def _report(self, progress: Event | None) -> None:
        if progress is not None:
            self._tell(progress)

    def still_running(self, *, wait: float = 0) -> None:
        """Raise EngineError if the engine has ended, or ends within *wait* seconds."""
        until = self._clock.now() + wait
        while (status := self._process.status) is None and self._clock.now() < until:
            self._clock.sleep(_TICK)
        self.tick()
        if status is None:
            return
        if status < 0:
            how = f"was ended by {_signal(-status)}"
        elif status == 0:
            how = "ended with status 0 though nobody asked it to"
        else:
            how = f"ended with status {status}"
        self._fail(how, status)

    def until_it_ends(self) -> NoReturn:
        """Follow the log; raise EngineError when the engine ends."""
        while True:
            self.still_running()
            self._clock.sleep(_TICK)

    def until_ready(self, client: Client) -> None:
        """Return when the engine serves the model; raise EngineError if it dies, hangs or lies."""
        engine, model = self._job.site.engine, self._job.promise.model
        moved, since, asked = self._story.moved, self._clock.now(), self._clock.now()
        found = Standing("loading", "it has not answered yet")
        while True:
            self.still_running()
            if self._story.moved != moved:
                moved, since = self._story.moved, self._clock.now()
            if self._clock.now() >= asked:
                found = standing(client, health=engine.health, models=engine.ready, model=model)
                asked = self._clock.now() + _ASK
            if found.state == "ready":
                self._is_ours()
                return
            if found.state == "wrong":
                self._fail(f"answers, but {found.said}")
            if self._clock.now() - since > self._job.quiet:
                self._fail(
                    f"did not become ready: no news in its log for {self._job.quiet:.0f} s,"
                    f" {found.said}"
                )
            self._clock.sleep(_TICK)

    def _is_ours(self) -> None:
        """Raise BusyError if what answers is known to be none of the engine's processes.

        A load takes long, and something else may have taken the port in the meantime.
        """
        port, ours = self._job.launch.port, set(self._process.alive())
        others = holders(port) - ours
        if others and not holders(port) & ours:
            raise BusyError(
                f"port {port} is answered by {program(min(others))}, not by the engine that was"
                " started",
                hint="--port with one that nothing else takes",
            )

    def _fail(self, how: str, status: int | None = None) -> NoReturn:
        story, engine = self._story, self._job.site.engine
        failure = story.failure
        cause, fix, link = (failure.cause, failure.fix, failure.link) if failure else (None,) * 3
        if failure is None and status == 0:
            cause, link = "a server that loses its engine process may end like this", _UNASKED
        if failure is None and status == -signal.SIGKILL:
            cause = "if nobody killed it, the kernel did, for want of host memory"
            fix = "dmesg names it; more memory, or a limit that is not below what loading takes"
        self._tell(
            Died(
                how=how,
                log=str(self._job.log),
                lines=tuple(story.tail)[-_SHOWN:],
                stage=story.stage,
                cause=cause,
                fix=fix,
                link=link,
            )
        )
        where = f" while {story.stage}" if story.stage is not None and status is not None else ""
        raise EngineError(
            f"{engine.name} {how}{where}{f': {cause}' if cause else ''}",
            hint=fix or f"the whole log: {self._job.log}",
        )


def _end(process: Process, tell: Tell, clock: Clock, caught: Interrupts) -> None:
    if not process.alive():
        return
    asked = caught.count
    ended: Literal["done", "left behind"] = "done" if process.status is None else "left behind"
    # Why suppress: whoever reads the events may be gone, and the engine must end all the same.
    with suppress(OSError):
        tell(Stopping(why="interrupted" if asked else ended))
    killed, left = process.end(clock, hurry=lambda: caught.count > asked)
    with suppress(OSError):
        tell(Stopped(killed=killed, left=left))


@contextmanager
def _claimed(job: Job) -> Iterator[None]:
    """Hold the log's lock; BusyError if another serve has it. It dies with its owner.

    An engine opens its port only when it has loaded, so a free port says nothing before that.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError as error:
        raise MachineError("serve needs Linux or macOS; plan and render run here") from error
    path = job.log.with_name(f"{job.log.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another kimideploy serves or loads with the log {job.log}",
                hint="--port and --log with others of your own, or end that one",
            ) from error
        yield


def _rotate(log: Path) -> None:
    """The log of the run before is kept as *.old, once."""
    with suppress(OSError):
        if log.is_file():
            log.replace(log.with_name(f"{log.name}.old"))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
