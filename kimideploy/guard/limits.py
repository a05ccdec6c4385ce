"""How much one key may ask, and all of them together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a guard takes. Bytes of a request, requests under way, requests a minute for each key.

    `per_minute` None is no limit. `share` is the part of what is under way that one key may have,
    and `silence` the seconds in which an engine must say something.
    """

    body: int = 16 << 20
    #: bytes of all requests that are being read and prepared
    bodies: int = 512 << 20
    under_way: int = 256
    share: float = 0.75
    per_minute: int | None = None
    silence: float = 600.0


class Rates:
    """A bucket for each key that fills steadily; a minute's worth may come at once."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, name: str) -> float:
        """Return how many seconds the key of *name* must wait; 0 takes a request from it."""
        if self._per_minute is None:
            return 0.0
        most, now = float(self._per_minute), self._clock()
        left, since = self._left.get(name, (most, now))
        left = min(most, left + (now - since) * most / 60)
        if left >= 1:
            self._left[name] = (left - 1, now)
            return 0.0
        self._left[name] = (left, now)
        return (1 - left) * 60 / most
