"""Hash files as fast as the machine can: one thread a core, each with a file of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from kimideploy.weights.events import InFlight, Moved
from kimideploy.weights.fetch import Pace
from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Stopped

_READ = 1 << 20
_TICK = 0.25


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
    stop = threading.Event()
    done: dict[str, int] = {}
    ended: set[str] = set()

    def look() -> Moved:
        return Moved(
            stage="hashing",
            done=sum(list(done.values())),
            total=sum(item.size for item, _ in files),
            files_done=len(ended),
            files=len(files),
            active=tuple(
                InFlight(path=item.path, done=done[item.path], total=item.size)
                for item, _ in files
                if item.path in done and item.path not in ended
            ),
        )

    def one(item: Item, path: Path) -> Hashed:
        done[item.path] = 0
        return prove(item, path, told=lambda n: done.__setitem__(item.path, n), stop=stop)

    pace = Pace(look)
    # Why the largest first: the last file to end should be a small one.
    order = sorted(files, key=lambda pair: -pair[0].size)
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
        pending: set[Future[Hashed]] = {pool.submit(one, *pair) for pair in order}
        try:
            while pending:
                ready, pending = wait(pending, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in ready:
                    found = future.result()
                    ended.add(found.item.path)
                    done[found.item.path] = found.item.size
                    yield found
                yield pace.now()
        finally:
            stop.set()
            for future in pending:
                future.cancel()


def prove(
    item: Item,
    path: Path,
    *,
    told: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Hashed:
    """Read *path* and compare its hash with *item*'s; never raises for what the file is."""
    hasher, count = item.hasher(), 0
    buffer = memoryview(bytearray(_READ))
    try:
        with path.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if found.st_size != item.size:
                return Hashed(item, found, f"{found.st_size:,} bytes, not {item.size:,}")
            while got := file.readinto(buffer):
                hasher.update(buffer[:got])
                count += got
                if told is not None:
                    told(count)
                if stop is not None and stop.is_set():
                    raise Stopped
    except FileNotFoundError:
        return Hashed(item, None, "missing")
    except OSError as error:
        return Hashed(item, None, f"can't be read: {error.strerror or error}")
    if hasher.hexdigest() != item.digest:
        return Hashed(item, found, "its hash is not the hub's")
    return Hashed(item, found, None)
