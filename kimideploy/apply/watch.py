"""Watch a running engine: read its log, notice its end, and know when it is ready."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NoReturn, Protocol

from kimideploy.apply.clock import Clock
from kimideploy.apply.events import Died, Event, Said, Tell
from kimideploy.apply.follow import Lines, Story
from kimideploy.apply.job import Job
from kimideploy.apply.process import Process
from kimideploy.apply.ready import Standing, standing
from kimideploy.catalog.failures import of_engine
from kimideploy.conformance.client import Client
from kimideploy.errors import BusyError, EngineError
from kimideploy.facts.probe.ports import holders, program

#: seconds between looks at the log, and between questions whether the engine is ready
_TICK, _ASK = 0.2, 1.0
#: lines shown of an engine that died
_SHOWN = 12
_CHUNK = 1 << 18
_UNASKED = "https://github.com/vllm-project/vllm/issues/48966"


class Log(Protocol):
    """What an engine writes: a file that grows, or a pipe that does not block."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Return what has come, nothing or None where nothing has."""


class Watch:
    """Reads the log of a running engine, and notices its end."""

    def __init__(self, job: Job, process: Process, log: Log, tell: Tell, clock: Clock) -> None:
        self._job, self._process, self._log, self._tell, self._clock = (
            job,
            process,
            log,
            tell,
            clock,
        )
        engine = job.site.engine
        self._lines = Lines()
        self._story = Story(engine.log, of_engine(job.catalog.failures, engine.id))
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

    @property
    def moved(self) -> int:
        """How many lines of the log brought news."""
        return self._story.moved

    def until_it_ends(self, each: Callable[[], None] = lambda: None) -> NoReturn:
        """Follow the log, and do *each* at every look; raise EngineError when the engine ends."""
        while True:
            self.still_running()
            each()
            self._clock.sleep(_TICK)

    def until_ready(self, client: Client, each: Callable[[], None] = lambda: None) -> None:
        """Return when the engine serves the model; raise EngineError if it dies, hangs or lies.

        *each* is done at every look.
        """
        engine, model = self._job.site.engine, self._job.promise.model
        moved, since, asked = self._story.moved, self._clock.now(), self._clock.now()
        found = Standing("loading", "it has not answered yet")
        while True:
            self.still_running()
            each()
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


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
