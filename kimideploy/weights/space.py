"""The disk: room for what is to come, proved before the first byte, and its refusals in words."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import MachineError, WeightsError
from kimideploy.quantities import decimal
from kimideploy.weights.manifest import Item

#: bytes left free beside the files: ledgers, manifests, and what else writes to that disk
_MARGIN = 256 << 20
#: fallocate(2): take the blocks, leave the size as it is
_KEEP_SIZE = 1
#: what a disk without room says
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True, slots=True)
class Room:
    """What a disk has for us. None: no limit, or none that is told."""

    free: int
    inodes: int | None
    file_size: int | None


def look(folder: Path) -> Room:
    """Return the room on the disk of *folder*, which must exist."""
    found = os.statvfs(folder)
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return Room(
        free=found.f_bavail * found.f_frsize,
        # Why files: a file system without inodes to run out of says that it has none at all.
        inodes=found.f_favail if found.f_files else None,
        file_size=soft if soft != _UNLIMITED else None,
    )


def check(
    items: Iterable[Item], there: int, room: Room, folder: Path, *, flag: str = "--to"
) -> None:
    """Raise WeightsError unless *items* fit, of which *there* bytes are on that disk already.

    *flag* is what names another folder.
    """
    wanted = tuple(items)
    need = max(sum(item.size for item in wanted) - there, 0)
    if short(need, room):
        raise WeightsError(
            f"{folder} has {decimal(room.free)} free, and {decimal(need)} are still to come"
            f" (plus {decimal(_MARGIN)} kept free): {decimal(short(need, room))} short",
            hint=f"{flag} names a folder on a larger disk; `kimideploy weights prune` makes room",
        )
    # Why two: a part and its ledger; folders are few.
    inodes = 2 * len(wanted) + 16
    if room.inodes is not None and inodes > room.inodes:
        raise WeightsError(
            f"{folder} has {room.inodes:,} inodes left, {inodes:,} are needed",
            hint=f"delete small files there, or name another disk by {flag}",
        )
    largest = max((item.size for item in wanted), default=0)
    if room.file_size is not None and largest > room.file_size:
        raise WeightsError(
            f"this shell may write files of {decimal(room.file_size)}, the largest has"
            f" {decimal(largest)}",
            hint="ulimit -f unlimited",
        )


def short(need: int, room: Room) -> int:
    """Return the bytes that *room* lacks for *need* more, 0 when they fit."""
    return max(need + _MARGIN - room.free, 0) if need else 0


def reserve(path: Path, size: int) -> int:
    """Take *size* bytes of disk for the file *path*; returns how many were newly taken.

    This is what a quota answers to, which no count of free space tells. Where the file system
    can't reserve, nothing is taken. Raises WeightsError when there is no room.
    """
    if not sys.platform.startswith("linux") or size == 0:
        return 0
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        before = os.fstat(descriptor).st_blocks
        libc = ctypes.CDLL(None, use_errno=True)
        offset = ctypes.c_int64
        libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, offset, offset)
        if libc.fallocate(descriptor, _KEEP_SIZE, 0, size) != 0:
            code = ctypes.get_errno()
            if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise WeightsError(
                    f"no room for {path.name}: {os.strerror(code)}",
                    hint="make room or raise the quota; --to names a folder on another disk",
                )
            return 0
        return (os.fstat(descriptor).st_blocks - before) * 512
    finally:
        os.close(descriptor)


@contextmanager
def disk(path: Path | None = None) -> Iterator[None]:
    """Say what a disk refuses in plain words: WeightsError where it is full, MachineError else.

    *path* is what was written, for errors that do not say it.
    """
    try:
        yield
    except ConnectionError:
        # Why: a reader of our output that has gone is no disk.
        raise
    except OSError as error:
        named = error.filename or path
        where = f" ({named})" if named else ""
        if error.errno in FULL:
            raise WeightsError(
                f"the disk is full{where}",
                hint="what is there is kept: make room, then run the same command again",
            ) from error
        raise MachineError(f"the disk refuses{where}: {error.strerror or error}") from error


def taken(paths: Iterable[Path]) -> int:
    """Return the bytes that *paths* take on the disk, holes not counted."""
    return sum(map(_blocks, paths)) * 512


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks
    except OSError:
        return 0


def writable(folder: Path, *, flag: str = "--to") -> None:
    """Make *folder*; raises MachineError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"{folder} can't be written: {error.strerror or error}",
            hint=f"{flag} names a folder of your own",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError(
            f"{folder} can't be written: permission denied",
            hint=f"{flag} names a folder of your own",
        )
