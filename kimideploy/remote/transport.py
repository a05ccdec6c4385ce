"""The contract of a connection: a program over there with its three streams, and a port.

Everything else, files, sudo, kimideploy itself, is built on these two; so two implementations
differ in nothing but how they connect.
"""

from __future__ import annotations

import re
import shlex
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from kimideploy.errors import MachineError

CHUNK = 1 << 17
#: signs that every login shell, csh and fish included, leaves alone inside single quotes
_TAME = re.compile(r"[A-Za-z0-9 _@%+=:,./~#&()*;<>?\[\]{}|^\"$`-]*")


class Lost(MachineError):  # noqa: N818
    """The connection broke; what was begun over there may still run."""


class Running(Protocol):
    """A program over there. Every method raises Lost if the connection breaks."""

    def write(self, data: bytes, /) -> None:
        """Give it *data* on its stdin; OSError if it does not read any more."""

    def end(self) -> None:
        """End its stdin."""

    def out(self, size: int, /) -> bytes:
        """Return what it printed, nothing at the end."""

    def err(self, size: int, /) -> bytes:
        """Return what it said on stderr, nothing at the end."""

    def status(self) -> int:
        """Return its exit status once it has ended."""

    def close(self) -> None:
        """Leave it."""


class Transport(Protocol):
    """A connection to one host."""

    #: paramiko or openssh
    kind: str

    def start(self, command: str, /) -> Running:
        """Return *command* running in the login shell over there."""

    def forward(self, port: int, /) -> AbstractContextManager[int]:
        """Have a port of this machine lead to 127.0.0.1:*port* over there, while it lasts."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and what it said."""

    status: int
    out: bytes
    err: bytes

    @property
    def said(self) -> str:
        """The last line of stderr, or of stdout."""
        for stream in (self.err, self.out):
            lines = stream.decode("utf-8", "replace").strip().splitlines()
            if lines:
                return lines[-1].strip()
        return f"exit status {self.status}"


def command(argv: Sequence[str]) -> str:
    """Return *argv* as a line that any login shell hands on word by word, unchanged.

    Why not shlex.join alone: fish reads backslashes inside single quotes, csh ! and newlines.
    """
    line = shlex.join(argv)
    if all(_TAME.fullmatch(word) for word in argv):
        return line
    packed = b64encode(line.encode("utf-8", "surrogateescape")).decode()
    return f"/bin/sh -c 'eval \"$(printf %s {packed} | base64 -d)\"'"


def run(  # noqa: C901  three streams
    transport: Transport,
    line: str,
    feed: Iterable[bytes] = (),
    on_out: Callable[[bytes], None] | None = None,
) -> Done:
    """Return how *line* ended; *on_out* gets what it prints as it comes, and it is not kept.

    All three streams move at once, so a program that waits for one of them never hangs. Raises
    Lost, and whatever *on_out* or *feed* raises; the program is left then.
    """
    running = transport.start(line)
    err: list[bytes] = []
    trouble: list[BaseException] = []

    def give() -> None:
        try:
            for data in feed:
                running.write(data)
        except (Lost, BrokenPipeError, ConnectionError):
            pass  # its status, or the reader, tells it
        except BaseException as error:  # noqa: BLE001  raised below, where the caller is
            trouble.append(error)
            running.close()
        finally:
            with suppress(OSError, MachineError):
                running.end()

    def listen() -> None:
        with suppress(Lost):
            while data := running.err(CHUNK):
                err.append(data)

    helpers = [threading.Thread(target=work, daemon=True) for work in (give, listen)]
    for helper in helpers:
        helper.start()
    out: list[bytes] = []
    take = on_out if on_out is not None else out.append
    try:
        while data := running.out(CHUNK):
            take(data)
        helpers[1].join()
        status = running.status()
    except BaseException:
        running.close()
        if trouble:
            raise trouble[0] from None
        raise
    helpers[0].join(timeout=5)
    if trouble:
        raise trouble[0]
    return Done(status, b"".join(out), b"".join(err))
