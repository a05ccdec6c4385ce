"""Where a command acts: on this machine, or on a host. Both are asked the same verbs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from kimideploy.apply.events import Ended, Event, Tell
from kimideploy.errors import KimiError
from kimideploy.remote import host as remote
from kimideploy.remote.bootstrap import Reached

T = TypeVar("T")
R = TypeVar("R")


class Place(Protocol):
    """A machine that an engine is, or is to be, kept running on."""

    @property
    def name(self) -> str:
        """What people call it."""

    def ask(self, verb: str, kind: type[T], /, **wish: Any) -> T:
        """Return the answer to *verb*; raises the KimiError it raises there."""

    def follow(self, run: str, tell: Tell, note: Callable[[str], None], /) -> Ended:
        """Return how *run* ended, its events told as they come."""

    def print(self, argv: Sequence[str], /) -> int:
        """Return the exit status of *argv*; what it prints goes to stdout as it comes."""


@dataclass(frozen=True, slots=True)
class Here:
    """This machine."""

    name: str = "this machine"

    def ask(self, verb: str, kind: type[T], /, **wish: Any) -> T:
        """Return the answer."""
        from kimideploy.apply.answer import answer  # noqa: PLC0415
        from kimideploy.apply.home import home  # noqa: PLC0415

        request = msgspec.json.encode({"who": remote.who(), **wish}, enc_hook=int)
        return msgspec.json.decode(answer(home(), verb, request), type=kind)

    def follow(self, run: str, tell: Tell, note: Callable[[str], None], /) -> Ended:  # noqa: ARG002
        """Return how it ended."""
        from kimideploy.apply.clock import SystemClock  # noqa: PLC0415
        from kimideploy.apply.home import home  # noqa: PLC0415
        from kimideploy.apply.runs import follow, newest  # noqa: PLC0415

        where = home()
        for line in follow(where, run if run != "newest" else newest(where), SystemClock()):
            event: Event = msgspec.json.decode(line, type=Event)
            if isinstance(event, Ended):
                return event
            tell(event)
        raise AssertionError(run)

    def print(self, argv: Sequence[str], /) -> int:
        """Run it here."""
        return subprocess.run(list(argv), check=False, stdin=subprocess.DEVNULL).returncode


@dataclass(frozen=True, slots=True)
class There:
    """A host behind a connection. `again` makes a new one when it breaks."""

    reached: Reached
    again: Callable[[], Reached]

    @property
    def name(self) -> str:
        """Its address as it was typed."""
        return str(self.reached.shell.address)

    def ask(self, verb: str, kind: type[T], /, **wish: Any) -> T:
        """Return the answer."""
        return remote.ask(self.reached, verb, kind, **wish)

    def follow(self, run: str, tell: Tell, note: Callable[[str], None], /) -> Ended:
        """Return how it ended."""
        return remote.follow(self.again, self.reached, run, tell, note=note)

    def print(self, argv: Sequence[str], /) -> int:
        """Run it over there."""

        def out(data: bytes) -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        ended = self.reached.shell.run(argv, on_out=out)
        sys.stderr.write(ended.err.decode("utf-8", "replace"))
        return ended.status


def each(items: Sequence[T], work: Callable[[T], R]) -> list[R | KimiError]:
    """Return what *work* gives for each, all at once; a KimiError of one is its result."""

    def guarded(item: T) -> R | KimiError:
        try:
            return work(item)
        except KimiError as error:
            return error

    if len(items) == 1:
        return [guarded(items[0])]
    with ThreadPoolExecutor(max_workers=max(1, min(len(items), 32))) as pool:
        return list(pool.map(guarded, items))
