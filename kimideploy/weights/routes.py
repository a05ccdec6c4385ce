"""Which way a file comes, HTTP or xet: whichever brought more bytes a second so far."""

from __future__ import annotations

import threading
from collections import defaultdict

from kimideploy.weights.manifest import Item
from kimideploy.weights.source import Source
from kimideploy.weights.wire import Wire
from kimideploy.weights.xet import Xet

#: seconds of streaming after which a way's rate says something
_TRIED = 2.0
#: failures in a row after which the xet store is left alone
_FAILURES = 3
#: bytes below which the xet store's own overhead shows
_SMALL = 8 << 20


class Routes:
    """Chooses a source for each request, and learns from what came of it."""

    def __init__(self, wire: Wire, xet: Xet | None) -> None:
        self._wire, self._xet = wire, xet
        self._bytes: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._failures = 0
        self._asked = 0
        self._plain: set[str] = set()
        self._lock = threading.Lock()

    def choose(self, item: Item) -> Source:
        """Return where to ask for bytes of *item*."""
        with self._lock:
            xet = self._xet
            if xet is None or item.xet is None or item.size < _SMALL or item.path in self._plain:
                return self._wire
            rates = [self._rate(source.name) for source in (self._wire, xet)]
            if None in rates:
                self._asked += 1
                return xet if self._asked % 2 else self._wire
            http, packed = (rate or 0.0 for rate in rates)
            return xet if packed > http else self._wire

    def shared(self, item: Item) -> bool:
        """Return whether several workers may fetch parts of *item*."""
        return self._wire.ranges or (self._xet is not None and item.xet is not None)

    def measured(self, source: Source, count: int, seconds: float) -> None:
        """Learn what a request brought."""
        with self._lock:
            self._bytes[source.name] += count
            self._seconds[source.name] += seconds
            if count and source is self._xet:
                self._failures = 0

    def failed(self, source: Source, item: Item) -> bool:
        """Learn of a failure; returns whether it was the one that ends the use of xet."""
        self._wire.forget(item)
        with self._lock:
            if source is not self._xet:
                return False
            self._plain.add(item.path)
            self._failures += 1
            if self._failures < _FAILURES:
                return False
            self._xet = None
            return True

    def wrong(self, item: Item) -> None:
        """Learn that a file came wrong: it is fetched again the plain way, asked for anew."""
        self._wire.forget(item)
        with self._lock:
            self._plain.add(item.path)

    def abort(self) -> None:
        """Wake whoever waits for an answer."""
        self._wire.abort()

    def close(self) -> None:
        """Close what is open."""
        self._wire.close()

    def _rate(self, name: str) -> float | None:
        seconds = self._seconds[name]
        return self._bytes[name] / seconds if seconds >= _TRIED else None
