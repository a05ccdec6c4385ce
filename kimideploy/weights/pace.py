"""How fast it goes: rates over the last seconds, and what is left at that rate."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kimideploy.weights.events import InFlight, Moved

#: seconds over which a rate is taken
_WINDOW = 8.0


class Pace:
    """Rates over the last seconds, in all and for each file."""

    def __init__(self, look: Callable[[], Moved]) -> None:
        self._look = look
        self._seen: list[tuple[float, Moved]] = []

    def now(self) -> Moved:
        """Return how far it is, with the rates."""
        found, when = self._look(), time.monotonic()
        self._seen.append((when, found))
        while len(self._seen) > 2 and when - self._seen[0][0] > _WINDOW:  # noqa: PLR2004
            self._seen.pop(0)
        began, first = self._seen[0]
        seconds = when - began
        if seconds <= 0:
            return found
        rate = _come(first, found) / seconds
        before = {file.path: file for file in first.active}
        active = tuple(
            msgspec.structs.replace(file, rate=_come(before.get(file.path), file) / seconds)
            for file in found.active
        )
        eta = (found.total - found.done) / rate if rate > 0 else None
        return msgspec.structs.replace(found, rate=rate, eta=eta, active=active)


def _come(before: Moved | InFlight | None, now: Moved | InFlight) -> int:
    """Return the bytes that came between two looks."""
    first = before.done - before.kept if before is not None else 0
    # Why not less: a file that came wrong takes its bytes back.
    return max(now.done - now.kept - first, 0)
