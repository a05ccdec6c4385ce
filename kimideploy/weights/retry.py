"""When a request is tried again, and how long is waited before: the server's word goes first."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from kimideploy.errors import WeightsError

#: answers below 500 after which the same request may succeed, and one above where it can't
_PASSING, _NOT_IMPLEMENTED = frozenset({408, 416, 425, 429}), 501
#: tries without a new byte before it is given up; waits double up to the longest, in seconds
_TRIES, FIRST, _LONGEST = 10, 1.0, 60.0
#: what a server may ask for at most: the hub counts in windows of five minutes
_LONGEST_ASKED = 600.0
_RATE_LIMIT = re.compile(r'"[^"]{0,200}"\s*;\s*r\s*=\s*(\d{1,9})\s*;\s*t\s*=\s*(\d{1,9})')


def transient(status: int) -> bool:
    """Return whether the same request may succeed after an answer of *status*."""
    return status in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED)  # noqa: PLR2004


class Trouble(Exception):  # noqa: N818  no error: it is tried again
    """A failure that may pass; *wait* is what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.why, self.wait = why, wait


class Stopped(Exception):  # noqa: N818  the way out of a thread
    """The run ends: someone else failed, or the user has had enough."""


def asked(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, by RateLimit or Retry-After."""
    limit = _RATE_LIMIT.search(headers.get("RateLimit") or headers.get("ratelimit") or "")
    if limit is not None and int(limit[1]) == 0:
        return min(float(limit[2]) + 1, _LONGEST_ASKED)
    after = (headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    if after.isdecimal():
        return min(float(after), _LONGEST_ASKED) if len(after) < 9 else _LONGEST_ASKED  # noqa: PLR2004
    try:
        seconds = parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_ASKED)


class Patience:
    """Counts tries of one thing since its last progress."""

    def __init__(self, what: str, first: float, tries: int = _TRIES) -> None:
        """Begin with *what* is tried, as messages call it, and the first wait in seconds."""
        self._what, self._first, self._tries, self._failed = what, first, tries, 0

    def progress(self) -> None:
        """Something came: the count begins anew."""
        self._failed = 0

    def wait(self, trouble: Trouble) -> float:
        """Return the seconds to wait before the next try; WeightsError when it was the last."""
        self._failed += 1
        if self._failed >= self._tries:
            raise WeightsError(
                f"{self._what}: {trouble.why}, {self._failed} times in a row",
                hint="what was fetched is kept; run the same command again to go on",
            ) from trouble
        # Why chance: workers that failed together should not come back together.
        longest = min(self._first * 2.0 ** (self._failed - 1), _LONGEST)
        own = longest * random.uniform(0.5, 1.0)  # noqa: S311
        # Why not less: a server that asks for no wait at all would have used up all tries at once.
        return max(own, trouble.wait or 0.0)


class Pause:
    """A moment before which nobody asks the hub: one worker's 429 is everybody's."""

    def __init__(
        self,
        stop: threading.Event,
        first: float = FIRST,
        told: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        """*first* is the wait before a second try; *told* hears what failed, why, and the wait."""
        self.first, self.told = first, told
        self._stop, self._until, self._lock = stop, 0.0, threading.Lock()

    def until(self, seconds: float) -> None:
        """Hold everybody back for *seconds* from now."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait *seconds*; raises Stopped when the run ends meanwhile."""
        if self._stop.wait(max(seconds, 0.0)):
            raise Stopped

    def heed(self) -> None:
        """Wait as long as everybody must."""
        while (left := self._until - time.monotonic()) > 0:
            self.sleep(left)
        if self._stop.is_set():
            raise Stopped
