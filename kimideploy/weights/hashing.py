"""Hash files as fast as the machine can: one thread a core, each with a file of its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from kimideploy.weights.events import Moved
from kimideploy.weights.manifest import Item
from kimideploy.weights.parallel import Tally, each

_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file that was read. `why` None: its bytes are what the item says."""

    item: Item
    found: os.stat_result | None
    why: str | None


def hashed(
    files: Sequence[tuple[Item, Path]], *, workers: int | None = None
) -> Iterator[Hashed | Moved]:
    """Yield each of *files* as it is read, and in between how far it is."""
    if not files:
        return
    tally = Tally("hashing", {item.path: item.size for item, _ in files})
    # Why the largest first: the last file to end should be a small one.
    tasks = {
        item.path: partial(prove, item, path, count=partial(tally.count, item.path))
        for item, path in sorted(files, key=lambda pair: -pair[0].size)
    }
    yield from each(tasks, tally, at_once=workers or os.cpu_count() or 1)


def sha256_of(path: Path) -> str:
    """Return the sha256 of the bytes in *path*; raises OSError."""
    hasher, buffer = sha256(), memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            hasher.update(buffer[:got])
    return hasher.hexdigest()


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)


def prove(item: Item, path: Path, *, count: Callable[[int], None] = lambda _: None) -> Hashed:
    """Read *path* and compare its hash with *item*'s; never raises for what the file is.

    *count* hears of the bytes that were read, and may raise Stopped.
    """
    hasher = item.hasher()
    buffer = memoryview(bytearray(_READ))
    try:
        # Why without waiting: a pipe in the place of a file would have us wait for ever.
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Hashed(item, None, "is no file")
            if found.st_size != item.size:
                return Hashed(item, found, f"{found.st_size:,} bytes, not {item.size:,}")
            while got := file.readinto(buffer):
                hasher.update(buffer[:got])
                count(got)
    except FileNotFoundError:
        return Hashed(item, None, "missing")
    except OSError as error:
        return Hashed(item, None, f"can't be read: {error.strerror or error}")
    if hasher.hexdigest() != item.digest:
        return Hashed(item, found, "its hash is not the hub's")
    return Hashed(item, found, None)
