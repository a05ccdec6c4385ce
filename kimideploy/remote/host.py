"""What a host is asked, over a connection: the same verbs as on the machine itself."""

from __future__ import annotations

import getpass
import json
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from kimideploy.apply.events import Ended, Event, Tell
from kimideploy.errors import (
    BusyError,
    EngineError,
    KimiError,
    MachineError,
    RequestError,
    WeightsError,
)
from kimideploy.remote.bootstrap import Reached
from kimideploy.remote.transport import Lost

T = TypeVar("T")
_KINDS: dict[int, type[KimiError]] = {
    kind.exit_code: kind
    for kind in (RequestError, MachineError, WeightsError, EngineError, BusyError)
}
#: seconds before a broken line is tried again, the longest pause, and until we give up
_FIRST, _LONGEST, _GIVE_UP = 1.0, 15.0, 3600.0


def error_of(ended: Ended, where: str) -> KimiError:
    """Return the error that a change ended with."""
    kind = _KINDS.get(ended.code, EngineError)
    serving = f"; release {ended.serving} serves as before" if ended.serving is not None else ""
    return kind(f"{where}: {ended.message or 'it failed'}{serving}", hint=ended.hint)


def who() -> str:
    """Return who asks, as the journal of a host names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def ask(host: Reached, verb: str, kind: type[T], **wish: Any) -> T:
    """Return the answer to *verb* as a *kind*; raises the KimiError that the host raises."""
    request = msgspec.json.encode({"who": who(), **wish}, enc_hook=int)
    ended = host.shell.run([host.program, "host", "ask", verb, "--json"], [request])
    if ended.status != 0:
        raise _error(host, ended.status, ended.err)
    try:
        return msgspec.json.decode(ended.out, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MachineError(f"{host.shell.address} answers what is no answer: {error}") from error


def follow(  # noqa: C901  what can happen to a line
    reach: Callable[[], Reached],
    host: Reached,
    run: str,
    tell: Tell,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Return how *run* ended, its events told as they come, however often the line breaks."""
    seen = 0
    ended: list[Ended] = []
    rest = b""

    def take(data: bytes) -> None:
        nonlocal rest, seen
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            seen += 1
            event = _event(line)
            if isinstance(event, Ended):
                ended.append(event)
            elif event is not None:
                tell(event)

    pause, silent_since = _FIRST, time.monotonic()
    while not ended:
        before = seen
        try:
            rest = b""
            words = [host.program, "host", "follow", run, "--skip", str(seen), "--json"]
            done = host.shell.run(words, on_out=take)
            if done.status != 0 and not ended:
                raise _error(host, done.status, done.err)
            if seen == before and not ended:
                raise MachineError(f"{host.shell.address} told nothing of the change {run}")
        except Lost as error:
            if seen > before:
                pause, silent_since = _FIRST, time.monotonic()
            if time.monotonic() - silent_since > _GIVE_UP:
                raise
            note(f"{error.message}; the change goes on over there, trying again")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
            host = _again(reach, host)
    return ended[0]


def _again(reach: Callable[[], Reached], host: Reached) -> Reached:
    """Return a new connection, or the broken one where that fails for now."""
    host.shell.transport.close()
    try:
        return reach()
    except KimiError:
        return host


def _event(line: bytes) -> Event | None:
    """Return the event in *line*; None for one that a newer kimideploy wrote."""
    try:
        found: Event = msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found


def _error(host: Reached, status: int, err: bytes) -> KimiError:
    """Return the error that the host's own boundary told."""
    where = host.shell.address
    for line in reversed(err.decode("utf-8", "replace").splitlines()):
        try:
            told = json.loads(line)["error"]
            told["exit_code"] = int(told["exit_code"])
        except (ValueError, LookupError, TypeError):
            continue
        kind = _KINDS.get(told["exit_code"], MachineError)
        return kind(f"{where}: {told.get('message')}", hint=told.get("hint"))
    last = (err.decode("utf-8", "replace").strip().splitlines() or [f"exit status {status}"])[-1]
    return MachineError(f"{where}: kimideploy over there ended with {status}: {last}")
