"""The words systemd understands from a service: sd_notify(3), over the standard library."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Speaks to the manager that started this process; to nobody where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        asked = environment.get("WATCHDOG_USEC", "")
        #: seconds within which a word must come, None: no watchdog is set
        self.watchdog = int(asked) / 1e6 if asked.isdecimal() else None

    def ready(self, status: str) -> None:
        """The service does its work from now on."""
        self._say("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say in one line how things are."""
        self._say(f"STATUS={status}")

    def extend(self, seconds: float) -> None:
        """Starting may take *seconds* from now."""
        self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        """It answered just now: feed the watchdog."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """It is ending, as it was asked to."""
        self._say("STOPPING=1")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        text = "\n".join(line.replace("\n", " ") for line in lines)
        # Why suppress: a manager that is being replaced must not end the engine.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.connect(address)
            way.send(text.encode())


#: what a child must not inherit: it would speak in this service's name
OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM")
