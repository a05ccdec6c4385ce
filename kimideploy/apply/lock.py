"""One change of a host at a time: a lock that dies with its owner, and a hold that expires.

The lock is the kernel's (flock): a process that is killed, or a machine that loses power, leaves
none behind. A hold is a word of an operator, "nobody changes this host until …".
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kimideploy.apply.answers import Holder
from kimideploy.apply.clock import Clock, SystemClock
from kimideploy.apply.files import remove, text, write
from kimideploy.apply.home import Home
from kimideploy.errors import BusyError

_TICK = 0.2


def holder(home: Home) -> Holder | None:
    """Return who holds this host now: a running change, or an operator's hold."""
    return _running(home) or _hold(home)


@contextmanager
def held(
    home: Home,
    *,
    who: str,
    why: str,
    run: str | None = None,
    wait: float = 0,
    clock: Clock | None = None,
) -> Iterator[None]:
    """Hold this host; BusyError after *wait* seconds if someone else does."""
    clock = clock or SystemClock()
    until = clock.now() + wait
    home.state.mkdir(parents=True, exist_ok=True)
    # Why 0600: whoever may open it may lock it, and nobody else is to stop a change.
    handle = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
        while not _free(home, handle, who):
            # Why asked: somebody who only looked may have been in the way for a moment.
            if clock.now() >= until and (found := holder(home)) is not None:
                raise _busy(found)
            clock.sleep(_TICK)
        mine = Holder(who=who, why=why, since=round(time.time(), 3), pid=os.getpid(), run=run)
        os.ftruncate(handle, 0)
        os.pwrite(handle, msgspec.json.encode(mine), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def refuse_if_held(home: Home, who: str) -> None:
    """Raise BusyError if someone else holds this host right now."""
    found = holder(home)
    if found is not None and not (found.pid is None and found.who == who):
        raise _busy(found)


def keep_out(home: Home, *, who: str, why: str, seconds: float) -> Holder:
    """Return the hold that now keeps everybody but *who* from changing this host."""
    home.state.mkdir(parents=True, exist_ok=True)
    refuse_if_held(home, who)
    now = round(time.time(), 3)
    hold = Holder(who=who, why=why, since=now, until=now + seconds)
    write(_path(home), msgspec.json.encode(hold))
    return hold


def release_hold(home: Home) -> Holder | None:
    """Return the hold that is over now, None if there was none."""
    found = _hold(home)
    if _path(home).exists():
        remove(_path(home))
    return found


def _path(home: Home) -> Path:
    return home.state / "hold.json"


def _free(home: Home, handle: int, who: str) -> bool:
    hold = _hold(home)
    if hold is not None and hold.who != who:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _running(home: Home) -> Holder | None:
    """Who holds the kernel's lock; the text in the file counts only while somebody does."""
    try:
        handle = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(os.read(handle, 1 << 16), type=Holder)
        return Holder(who="unknown", why="a change", since=0)
    finally:
        os.close(handle)
    return None


def _hold(home: Home) -> Holder | None:
    said = text(home.state / "hold.json")
    with suppress(msgspec.DecodeError):
        found = msgspec.json.decode(said, type=Holder) if said is not None else None
        if found is not None and (found.until is None or found.until > time.time()):
            return found
    return None


def _busy(found: Holder) -> BusyError:
    since = time.strftime("%H:%M:%S UTC", time.gmtime(found.since))
    if found.until is not None:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.until))
        return BusyError(
            f"{found.who} holds this host until {until}: {found.why}",
            hint="kimideploy lock break ends that",
        )
    return BusyError(
        f"{found.who} is changing this host since {since}: {found.why}",
        hint="kimideploy attach shows it; --wait SECONDS waits for its end",
    )
