"""Tasks on files, a few at a time, with word in between of how far they are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from kimideploy.weights.events import InFlight, Moved, Stage
from kimideploy.weights.pace import Pace
from kimideploy.weights.retry import Stopped

T = TypeVar("T")
_TICK = 0.25
_WRITERS = 4


class Tally:
    """How far some files are, and whether all shall end."""

    def __init__(self, stage: Stage, sizes: Mapping[str, int]) -> None:
        """Name the files that are worked on, each with its bytes."""
        self._stage, self._sizes = stage, sizes
        self._done: dict[str, int] = {}
        self._ended: set[str] = set()
        self.stop = threading.Event()

    def count(self, name: str, size: int) -> None:
        """Count *size* more bytes of *name*; raises Stopped when all shall end."""
        self._done[name] = self._done.get(name, 0) + size
        if self.stop.is_set():
            raise Stopped

    def end(self, name: str) -> None:
        """Count the file *name* as done."""
        self._done[name] = self._sizes[name]
        self._ended.add(name)

    def look(self) -> Moved:
        """Return how far it is."""
        done = dict(self._done)
        return Moved(
            stage=self._stage,
            done=sum(done.values()),
            total=sum(self._sizes.values()),
            files_done=len(self._ended),
            files=len(self._sizes),
            active=tuple(
                InFlight(path=name, done=count, total=self._sizes[name])
                for name, count in done.items()
                if name not in self._ended
            ),
        )


def each(
    tasks: Mapping[str, Callable[[], T]], tally: Tally, *, at_once: int | None = None
) -> Iterator[T | Moved]:
    """Run *tasks*, by the file each works on; yield what they return, and how far they are.

    *at_once* None: as many as a disk is written by with profit. What a task raises is raised here,
    after the others have been told to end.
    """
    if at_once is None:
        at_once = min(_WRITERS, os.cpu_count() or 1)
    pace = Pace(tally.look)
    with ThreadPoolExecutor(max_workers=max(1, at_once)) as pool:
        names: dict[Future[T], str] = {pool.submit(task): name for name, task in tasks.items()}
        pending = set(names)
        try:
            while pending:
                ready, pending = wait(pending, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in ready:
                    result = future.result()
                    tally.end(names[future])
                    yield result
                yield pace.now()
        finally:
            # Why both: what has not begun is called off, what runs is told to end.
            tally.stop.set()
            for future in pending:
                future.cancel()
