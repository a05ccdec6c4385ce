"""Time as an argument: tests never wait."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow, and a pause."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since some fixed moment; setting the date does not change it."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        time.sleep(seconds)
