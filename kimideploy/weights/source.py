"""Where bytes come from: a source opens a range of a file, a body is read like a stream.

Two sources are alike in this, plain HTTP and the xet store; all that resuming, hashing and
claiming need is a range that arrives in order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Trouble

#: bytes of the smallest and the largest buffer; seconds in which one is to be full to be doubled
_LEAST, _MOST, _SOON = 16 << 10, 512 << 10, 0.1


class Body(Protocol):
    """An answer under way."""

    @property
    def came(self) -> int:
        """Bytes that have come so far, also those that nobody asked for."""
        ...

    def readinto(self, view: memoryview) -> int:
        """Fill *view* from the start, return how many bytes; 0 at the end. Raises Trouble."""
        ...

    def abort(self) -> None:
        """Make the reader in another thread come back soon, with Trouble or the end."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Source(Protocol):
    """Opens ranges of files."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def open(self, item: Item, start: int, end: int) -> Body:
        """Ask for the bytes of *item* from *start* up to *end*; raises Trouble, WeightsError."""
        ...


class Range(Protocol):
    """Bytes of a file from `at` up to `end`; both may move while they come."""

    @property
    def at(self) -> int:
        """Where the next byte belongs."""
        ...

    @property
    def end(self) -> int:
        """Where it ends."""
        ...


@dataclass(eq=False)
class _Watched:
    """A body that is read: what had come of it when that last changed, and when."""

    body: Body
    came: int
    since: float
    #: its bytes are being taken, which may last: a full disk or a limit on the rate is no stall
    busy: bool = False
    stalled: bool = False


class Watch:
    """Ends bodies that bring nothing: a connection may stay open for hours and be dead."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._bodies: list[_Watched] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="stall watch")

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def over(self, body: Body, span: Range, take: Callable[[memoryview], None]) -> None:
        """Read *body* until *span* is at its end; *take* is handed its bytes and moves it there.

        Raises Trouble for a stall or a short answer.
        """
        watched = _Watched(body, body.came, time.monotonic())
        with self._lock:
            self._bodies.append(watched)
        try:
            self._read(watched, span, take)
        except Trouble as trouble:
            if watched.stalled:
                raise Trouble(self._short(watched, span)) from trouble
            raise
        finally:
            with self._lock:
                self._bodies.remove(watched)

    def _read(self, watched: _Watched, span: Range, take: Callable[[memoryview], None]) -> None:
        room = _LEAST
        buffer = memoryview(bytearray(room))
        while (left := span.end - span.at) > 0:
            began = time.monotonic()
            got = watched.body.readinto(buffer[:left])
            if not got:
                raise Trouble(self._short(watched, span))
            watched.busy = True
            take(buffer[:got])
            watched.busy = False
            # Why not large from the start: a buffer is handed on when it is full, and a slow line
            # that fills it in minutes would look dead until then.
            if room < _MOST and time.monotonic() - began < _SOON:
                room *= 2
                buffer = memoryview(bytearray(room))

    def _short(self, watched: _Watched, span: Range) -> str:
        if watched.stalled:
            return f"nothing came for {self.seconds:g} s"
        return f"the answer ended {span.end - span.at:,} bytes early"

    def abort(self) -> None:
        """End every body."""
        with self._lock:
            for watched in self._bodies:
                _abort(watched.body)

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            now = time.monotonic()
            with self._lock:
                for watched in self._bodies:
                    came = watched.body.came
                    if watched.busy or came != watched.came:
                        watched.came, watched.since = came, now
                    elif now - watched.since > self.seconds:
                        watched.stalled = True
                        _abort(watched.body)


def _abort(body: Body) -> None:
    # Why all: a body that ends at the same time may be in any state.
    with suppress(Exception):
        body.abort()


class Rate:
    """Bytes per second that all workers share; None is no limit."""

    def __init__(self, limit: float | None, sleep: Callable[[float], None]) -> None:
        self._limit, self._sleep = limit, sleep
        self._free, self._lock = 0.0, threading.Lock()

    def take(self, count: int) -> None:
        """Return when *count* bytes more are within the limit."""
        if self._limit is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._limit
            wait = self._free - now
        if wait > 0:
            self._sleep(wait)
