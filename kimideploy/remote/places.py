"""Where a command acts: on this machine, or on a host. Both are asked the same verbs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from kimideploy.apply.events import Ended, Event, Tell
from kimideploy.errors import KimiError, MachineError
from kimideploy.remote import host as remote
from kimideploy.remote.bootstrap import Reached
from kimideploy.remote.transport import Lost

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
        try:
            return subprocess.run(list(argv), check=False, stdin=subprocess.DEVNULL).returncode
        except FileNotFoundError as error:
            raise MachineError(f"{argv[0]} is not here") from error


@dataclass(slots=True)
class There:
    """A host behind a connection. `again` makes a new one when it breaks."""

    reached: Reached
    again: Callable[[], Reached]

    @property
    def name(self) -> str:
        """Its address as it was typed."""
        return str(self.reached.shell.address)

    def ask(self, verb: str, kind: type[T], /, **wish: Any) -> T:
        """Return the answer; a connection that broke in the meantime is made anew, once."""
        try:
            return remote.ask(self.reached, verb, kind, **wish)
        except Lost:
            self.reached = self.again()
            return remote.ask(self.reached, verb, kind, **wish)

    def follow(self, run: str, tell: Tell, note: Callable[[str], None], /) -> Ended:
        """Return how it ended."""

        def again() -> Reached:
            self.reached = self.again()
            return self.reached

        return remote.follow(again, self.reached, run, tell, note=note)

    def print(self, argv: Sequence[str], /) -> int:
        """Run it over there."""

        def out(data: bytes) -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        ended = self.reached.shell.run(argv, on_out=out)
        sys.stderr.write(ended.err.decode("utf-8", "replace"))
        return ended.status


def all_of(items: Sequence[T], work: Callable[[T], R]) -> list[R]:
    """Return what *work* gives for each, all at once; raises the first KimiError among them."""
    found: list[R] = []
    for result in each(items, work):
        if isinstance(result, KimiError):
            raise result
        found.append(result)
    return found


def each(items: Sequence[T], work: Callable[[T], R]) -> list[R | KimiError]:
    """Return what *work* gives for each, all at once; a KimiError of one is its result."""

    def guarded(item: T) -> R | KimiError:
        try:
            return work(item)
        except KimiError as error:
            return error

    found: dict[int, R | KimiError] = {}
    trouble: list[BaseException] = []

    def one(index: int, item: T) -> None:
        try:
            found[index] = guarded(item)
        except BaseException as error:  # noqa: BLE001  raised below, where the caller is
            trouble.append(error)

    # Why daemons and no pool: Ctrl-C must not wait for hosts that are still at work.
    threads = [
        threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate(items[1:], 1)
    ]
    for thread in threads:
        thread.start()
    if items:
        one(0, items[0])
    for thread in threads:
        thread.join()
    if trouble:
        raise trouble[0]
    return [found[index] for index in range(len(items))]
