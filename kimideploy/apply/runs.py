"""Runs: each change of a host writes its events to a file that anyone may follow, and leave."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kimideploy.apply.clock import Clock
from kimideploy.apply.events import Ended, Event, Tell
from kimideploy.apply.files import write
from kimideploy.apply.home import Home
from kimideploy.apply.order import Order, read, written
from kimideploy.errors import RequestError

#: seconds between looks, and how long a run may take until it begins
_TICK, _BEGIN = 0.1, 30.0
#: runs that are kept
_KEPT = 20


def begin(home: Home, order: Order, release: int | None = None) -> str:
    """Return the id of a new run whose order lies in its folder; *release*: to return to it."""
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    folder = home.runs / name
    folder.mkdir(mode=0o700)
    write(folder / "order.json", written(order), mode=0o600)
    if release is not None:
        write(folder / "release", str(release).encode(), mode=0o600)
    for old in runs(home)[_KEPT:]:
        _forget(home.runs / old)
    return name


def order_of(home: Home, run: str) -> Order:
    """Return what a run was asked for."""
    path = _folder(home, run) / "order.json"
    return read(path.read_text(encoding="utf-8"), name=str(path))


def release_of(home: Home, run: str) -> int | None:
    """Return the release a run is to return to; None: it makes one."""
    try:
        return int((_folder(home, run) / "release").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def runs(home: Home) -> list[str]:
    """Return the runs of this host, the newest first."""
    with suppress(FileNotFoundError):
        return sorted((path.name for path in home.runs.iterdir()), reverse=True)
    return []


def newest(home: Home) -> str:
    """Return the last run of this host; RequestError if there was none."""
    every = runs(home)
    if not every:
        raise RequestError("nothing was ever changed on this host by kimideploy")
    return every[0]


@contextmanager
def written_down(home: Home, run: str) -> Iterator[Tell]:
    """Yield what writes each event to the run's file; the file is locked as long as it lives."""
    handle = os.open(
        _folder(home, run) / "events.jsonl",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
        0o600,
    )
    fcntl.flock(handle, fcntl.LOCK_EX)

    def tell(event: Event) -> None:
        # Why suppress: on a full disk nobody may read it, and the change must be taken back.
        with suppress(OSError):
            os.write(handle, msgspec.json.encode(event) + b"\n")

    try:
        yield tell
    finally:
        os.close(handle)


def follow(home: Home, run: str, clock: Clock, *, skip: int = 0) -> Iterator[bytes]:
    """Yield each line of a run as it comes, after the first *skip*, until the run has ended.

    A run whose process is gone without a last word ends with an `ended` event that says so.
    """
    path = _folder(home, run) / "events.jsonl"
    until = clock.now() + _BEGIN
    while not path.exists():
        if clock.now() > until:
            yield _vanished("it never began")
            return
        clock.sleep(_TICK)
    rest, seen, ended = b"", 0, False
    with path.open("rb", buffering=0) as file:
        while True:
            # Why asked first: what a living process wrote until now is read below.
            alive = _is_alive(file.fileno())
            while chunk := file.read(1 << 18):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    seen += 1
                    ended = ended or b'"event":"ended"' in line[:40]
                    if seen > skip:
                        yield line
            if ended or not alive:
                break
            clock.sleep(_TICK)
    if not ended:
        yield _vanished("its process was killed, or the machine lost power")


def is_running(home: Home, run: str) -> bool:
    """Return whether the process of a run is alive."""
    try:
        with (_folder(home, run) / "events.jsonl").open("rb") as file:
            return _is_alive(file.fileno())
    except FileNotFoundError:
        return False


def _is_alive(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _vanished(how: str) -> bytes:
    return msgspec.json.encode(
        Ended(
            result="vanished",
            code=3,
            message=f"the change did not end: {how}",
            hint="run the same command again; what was done stays done",
        )
    )


def _folder(home: Home, run: str) -> Path:
    if not run or run.startswith(".") or "/" in run or not (home.runs / run).is_dir():
        raise RequestError(f"there is no run {run!r} here")
    return home.runs / run


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
