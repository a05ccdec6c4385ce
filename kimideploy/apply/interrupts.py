"""Ctrl-C, SIGTERM and a closed terminal: one interruption, and then time to clean up."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """The signals that came. They are only counted, but raise between `allow` and `shield`."""

    def __init__(self) -> None:
        self.count = 0
        self._raises = False

    def allow(self) -> None:
        """The first signal raises KeyboardInterrupt from here on; at once if it came before."""
        self._raises = True
        if self.count:
            self._interrupt()

    def shield(self) -> None:
        """No signal raises from here on, so that ending an engine can't be left half done."""
        self._raises = False

    def took(self, _number: int, _frame: FrameType | None) -> None:
        """Count a signal."""
        self.count += 1
        if self._raises:
            self._interrupt()

    def _interrupt(self) -> None:
        self._raises = False
        raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Catch SIGINT, SIGTERM and SIGHUP; the handlers from before are back afterwards.

    Signals that are ignored (nohup) stay ignored. Outside the main thread nothing is caught.
    """
    caught = Interrupts()
    before = {}
    if threading.current_thread() is threading.main_thread():
        names = ["SIGINT", "SIGTERM"] + (["SIGHUP"] if sys.platform != "win32" else [])
        for number in (signal.Signals[name] for name in names):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, caught.took)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
