"""Serve a plan on this machine: check, launch, follow, wait until ready, ask, stay, end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from kimideploy.apply import preflight
from kimideploy.apply.clock import Clock, SystemClock
from kimideploy.apply.events import (
    Asking,
    Judged,
    Noted,
    Planned,
    Ready,
    Serving,
    Started,
    Stopped,
    Stopping,
    Tell,
)
from kimideploy.apply.interrupts import Interrupts, interrupts
from kimideploy.apply.job import Job, environment, key
from kimideploy.apply.process import Process, start
from kimideploy.apply.watch import Watch
from kimideploy.conformance.client import Client
from kimideploy.conformance.run import prove
from kimideploy.conformance.snippet import snippet
from kimideploy.conformance.verdict import Verdict
from kimideploy.errors import BusyError, MachineError

#: seconds in which an engine that broke off an answer is seen to be dying
_DYING = 1.0


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
    checks = preflight.judge(job, preflight.look(job))
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
                watch = Watch(job, process, log, tell, clock)
                return _carry_out(job, watch, Client(job.url, key=secret), tell)
        finally:
            caught.shield()
            _end(process, tell, clock, caught)


def _carry_out(job: Job, watch: Watch, client: Client, tell: Tell) -> Verdict:
    if job.launch.headless:
        tell(Noted(text="this node has no endpoint: node 0 has it, and is ready when all are"))
        watch.until_it_ends()
    watch.until_ready(client)
    tell(Ready(url=job.url, model=job.promise.model, seconds=watch.age))
    verdict = prove(
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
