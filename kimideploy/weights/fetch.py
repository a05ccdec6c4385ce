"""Fetch files: workers share out the missing bytes, every file is proved before it gets its name.

Spans are dealt by guided self-scheduling (Polychronopoulos and Kuck, 1987): long ones first, so
that requests are few, and short ones at the end. Who has nothing left to do takes over half of the
span that will last longest, so that no worker is left with the last file on a slow connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kimideploy.errors import WeightsError
from kimideploy.weights.events import Arrived, Damaged, Event, InFlight, Moved, Retried, Told
from kimideploy.weights.manifest import Item
from kimideploy.weights.pace import Pace
from kimideploy.weights.part import BLOCK, Part, Span
from kimideploy.weights.retry import Patience, Pause, Stopped, Trouble
from kimideploy.weights.routes import Routes
from kimideploy.weights.source import Rate, Source, Watch

#: bytes of the shortest and the longest span that is asked for at once
_SHORTEST, _LONGEST = 64 << 20, 2 << 30
#: bytes of the smallest half that is taken over; seconds that what is left has to last, and before
#: which nothing can be said of that
_HALF, _LASTING, _NEW = 8 << 20, 4.0, 1.0
#: times a file may arrive whole and wrong
_WRONG = 3
#: seconds between two words on the progress
_TICK = 0.25
#: seconds that workers have to end
_PATIENCE = 3.0
State = Literal["waiting", "opening", "open", "done"]


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A span that is being fetched, since when and from where."""

    file: _File
    span: Span
    since: float
    start: int

    def lasts(self, now: float) -> float:
        """Return the seconds it will go on for at the rate it had so far; 0 where it is too new."""
        if now - self.since < _NEW:
            return 0.0
        rate = (self.span.at - self.start) / (now - self.since)
        return (self.span.end - self.span.at) / max(rate, 1.0)


@dataclass
class _File:
    """One file on its way."""

    item: Item
    part: Part
    target: Path
    state: State = "waiting"
    gaps: list[tuple[int, int]] = field(default_factory=list)
    wrong: int = 0

    @property
    def missing(self) -> int:
        """Bytes that nobody fetches yet."""
        return sum(end - start for start, end in self.gaps)


class Fetch:
    """One run over some files. `fetched` counts the bytes that came."""

    def __init__(
        self,
        parts: Sequence[tuple[Item, Path, Path]],
        routes: Routes,
        *,
        workers: int,
        stall: float,
        rate: float | None,
        pause: Pause,
        stop: threading.Event,
        arrived: Callable[[Item, os.stat_result], None],
    ) -> None:
        """Name what is to be fetched: each item, the place of its part, and its final path."""
        self._files = [_File(item, Part(item, place), target) for item, place, target in parts]
        self._routes, self._workers = routes, workers
        self._stop, self._pause, self._arrived = stop, pause, arrived
        self._watch, self._rate = Watch(stall), Rate(rate, pause.sleep)
        self._turn = threading.Condition()
        self._running: list[_Running] = []
        self._failure: BaseException | None = None
        self._said: list[Event] = []
        self.fetched = 0

    def run(self) -> Iterator[Event]:
        """Fetch all; yields what happens. Raises what stopped it, with everything else kept."""
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"fetch {n}")
            for n in range(max(1, self._workers))
        ]
        self._watch.start()
        pace = Pace(self._snapshot)
        try:
            for thread in threads:
                thread.start()
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(_TICK)
                yield from self._spoken()
                yield pace.now()
        finally:
            self._end(threads)
        yield from self._spoken()
        if self._failure is not None:
            raise self._failure

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """End all workers; one that hangs in the network is left behind, and writes no more."""
        self._stop.set()
        self._watch.abort()
        self._routes.abort()
        with self._turn:
            self._turn.notify_all()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0))
        self._watch.end()
        for file in self._files:
            with suppress(OSError):
                file.part.close()

    def _spoken(self) -> Iterator[Event]:
        with self._turn:
            said, self._said = self._said, []
        yield from said

    def _say(self, event: Event) -> None:
        with self._turn:
            self._said.append(event)

    def _snapshot(self) -> Moved:
        files = self._files
        active = [file for file in files if file.state in ("opening", "open")]
        return Moved(
            stage="fetching",
            done=sum(f.item.size if f.state == "done" else f.part.have for f in files),
            total=sum(file.item.size for file in files),
            kept=sum(file.part.kept for file in files),
            files_done=sum(file.state == "done" for file in files),
            files=len(files),
            active=tuple(
                InFlight(path=f.item.path, done=f.part.have, total=f.item.size, kept=f.part.kept)
                for f in active
            ),
        )

    # --- workers ---------------------------------------------------------------------------

    def _work(self) -> None:
        mine: _File | None = None
        try:
            while (claimed := self._claim(mine)) is not None:
                mine, span = claimed
                if span is None:
                    self._open(mine)
                else:
                    self._fetch(mine, span)
                self._settle(mine)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  it is raised again where the run is waited for
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._turn:
            self._failure = self._failure or error
            self._stop.set()
            self._turn.notify_all()
        self._watch.abort()
        self._routes.abort()

    def _claim(self, mine: _File | None) -> tuple[_File, Span | None] | None:
        """Return a file to open or a span to fetch, None when nothing is left; waits for either."""
        with self._turn:
            while not self._stop.is_set():
                if all(file.state == "done" for file in self._files):
                    return None
                if mine is not None and mine.gaps:
                    return mine, self._deal(mine)
                fresh = next((file for file in self._files if file.state == "waiting"), None)
                if fresh is not None:
                    fresh.state = "opening"
                    return fresh, None
                shared = [f for f in self._files if f.gaps and self._routes.shared(f.item)]
                if shared:
                    largest = max(shared, key=lambda file: file.missing)
                    return largest, self._deal(largest)
                half = self._half()
                if half is not None:
                    return half
                self._turn.wait(1.0)
        return None

    def _half(self) -> tuple[_File, Span] | None:
        """Take over the second half of what will last longest, where that is worth a request."""
        now = time.monotonic()
        lasting = [
            run
            for run in self._running
            if run.span.end - run.span.at >= 2 * _HALF
            and run.lasts(now) > _LASTING
            and self._routes.shared(run.file.item)
        ]
        if not lasting:
            return None
        run = max(lasting, key=lambda run: run.lasts(now))
        # Why safe while it is read: what its worker has in its hands is far less than a half.
        middle = (run.span.at + run.span.end) // 2 // BLOCK * BLOCK
        half = Span(run.file.part, middle, run.span.end)
        run.span.end = middle
        return run.file, half

    def _deal(self, file: _File) -> Span:
        """Cut a span off the file's first gap."""
        start, end = file.gaps.pop(0)
        left = sum(f.missing for f in self._files) + sum(
            f.item.size for f in self._files if f.state in ("waiting", "opening")
        )
        share = min(max(left // (2 * self._workers), _SHORTEST), _LONGEST) // BLOCK * BLOCK
        if end - start > share + _SHORTEST and self._routes.shared(file.item):
            file.gaps.insert(0, (start + share, end))
            end = start + share
        return Span(file.part, start, end)

    def _open(self, file: _File) -> None:
        """Take over what an earlier run left of the file."""
        file.part.path.parent.mkdir(parents=True, exist_ok=True)
        file.part.open()
        with self._turn:
            file.gaps, file.state = file.part.gaps(), "open"
            self._turn.notify_all()

    def _fetch(self, file: _File, span: Span) -> None:
        patience = Patience(file.item.path, self._pause.first)
        while span.at < span.end:
            source = self._routes.choose(file.item)
            before = span.at
            run = _Running(file, span, time.monotonic(), before)
            with self._turn:
                self._running.append(run)
            try:
                self._bring(source, file, span)
            except Trouble as trouble:
                if self._stop.is_set():
                    raise Stopped from trouble
                if span.at > before:
                    patience.progress()
                if self._routes.failed(source, file.item):
                    self._say(Told(text=f"the xet store fails ({trouble.why}): over HTTP instead"))
                # Why no wait: after the store has failed, the file comes another way.
                wait = patience.wait(trouble) if source.name == "http" else 0.0
                self._say(Retried(path=file.item.path, why=trouble.why, wait=wait))
                self._pause.sleep(wait)
            finally:
                with self._turn:
                    self._running.remove(run)

    def _bring(self, source: Source, file: _File, span: Span) -> None:
        """Ask for what is missing of *span*, once; Trouble for an answer that does not bring it."""
        before, began = span.at, time.monotonic()
        try:
            body = source.open(file.item, span.at, span.end)
            try:
                self._watch.over(body, span, lambda data: self._take(file, span, data))
            finally:
                body.close()
        finally:
            self._routes.measured(source, span.at - before, time.monotonic() - began)

    def _take(self, file: _File, span: Span, data: memoryview) -> None:
        if self._stop.is_set():
            raise Stopped
        self._rate.take(len(data))
        file.part.write(span, data)
        with self._turn:
            self.fetched += len(data)

    def _settle(self, file: _File) -> None:
        """Publish the file if it is complete and right; begin it anew if it is wrong."""
        with self._turn:
            if file.state != "open" or file.gaps or not file.part.complete:
                return
            file.state = "opening"
        if file.part.matches():
            found = file.part.publish(file.target)
            self._arrived(file.item, found)
            self._say(Arrived(path=file.item.path, bytes=file.item.size))
            with self._turn:
                file.state = "done"
                self._turn.notify_all()
            return
        file.wrong += 1
        file.part.discard()
        if file.wrong >= _WRONG:
            raise WeightsError(
                f"{file.item.path} came whole {_WRONG} times, and wrong each time: its bytes are"
                f" not those that the hub's own {file.item.algorithm} hash names",
                hint="a proxy or mirror in between changes it; try another HF_ENDPOINT",
            )
        self._routes.wrong(file.item)
        self._say(Damaged(path=file.item.path, why="its hash is not the hub's", mended=True))
        with self._turn:
            file.part = Part(file.item, file.part.path.with_suffix(""))
            file.state = "waiting"
            self._turn.notify_all()
