"""Where bytes come from: a source opens a range of a file, a body is read like a stream.

Two sources are alike in this, plain HTTP and the xet store; all that resuming, hashing and
claiming need is a range that arrives in order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Trouble


class Body(Protocol):
    """An answer under way."""

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


class Watch:
    """Ends bodies that bring nothing: a connection may stay open for hours and be dead."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._bodies: dict[int, tuple[Body, int, float]] = {}
        self._brought: dict[int, int] = {}
        self._stalled: set[int] = set()
        self._busy: set[int] = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="stall watch")

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def over(self, body: Body, span: tuple[int, int], take: Callable[[memoryview], None]) -> None:
        """Read *body* whole and hand its bytes to *take*; Trouble for a stall or a short answer."""
        start, end = span
        key, left = id(body), end - start
        buffer = memoryview(bytearray(min(left, 512 << 10)))
        with self._lock:
            self._bodies[key], self._brought[key] = (body, 0, time.monotonic()), 0
        try:
            while left:
                got = body.readinto(buffer[: min(left, len(buffer))])
                if not got:
                    break
                left -= got
                # Why none while it is taken: a full disk or a limit on the rate is no stall.
                self._busy.add(key)
                take(buffer[:got])
                self._brought[key] += got
                self._busy.discard(key)
        except Trouble as trouble:
            if key in self._stalled:
                raise Trouble(self._short(key, left)) from trouble
            raise
        else:
            if left:
                raise Trouble(self._short(key, left))
        finally:
            with self._lock:
                self._stalled.discard(key)
                self._busy.discard(key)
                del self._bodies[key], self._brought[key]

    def _short(self, key: int, left: int) -> str:
        if key in self._stalled:
            return f"nothing came for {self.seconds:g} s"
        return f"the answer ended {left:,} bytes early"

    def abort(self) -> None:
        """End every body."""
        with self._lock:
            for body, _, _ in self._bodies.values():
                with suppress(Exception):
                    body.abort()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            now = time.monotonic()
            with self._lock:
                for key, (body, seen, since) in list(self._bodies.items()):
                    if key in self._busy or self._brought[key] != seen:
                        self._bodies[key] = (body, self._brought[key], now)
                    elif now - since > self.seconds:
                        self._stalled.add(key)
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
