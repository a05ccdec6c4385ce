"""Take over files that are on this machine already: the hub's cache, a folder, another commit.

A clone of the blocks (reflink) comes first, as it costs nothing and stays ours whatever happens to
the other; then a second name (hard link); a copy only of what is small, or from another disk. All
are hashed.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kimideploy.weights import space
from kimideploy.weights.events import Adopted, Event, How, Moved, Told
from kimideploy.weights.hashing import Hashed, prove
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.parallel import Tally, each
from kimideploy.weights.seen import Record
from kimideploy.weights.sink import Sink
from kimideploy.weights.store import Kept, Staging

#: ioctl FICLONE of linux/fs.h
_CLONE = 0x40049409
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Donor:
    """A file that may be an item: of its size, in a place where it is to be expected."""

    item: Item
    path: Path
    #: whether it lies on the disk the weights go to, where taking it over costs no room
    near: bool


@dataclass(frozen=True, slots=True)
class _Taken:
    """What came of a donor: how it was taken, and what its bytes are; None: it could not be."""

    donor: Donor
    how: How | None
    result: Hashed


def caches() -> list[Path]:
    """Return the hub caches of this machine's user: HF_HUB_CACHE, HF_HOME, or the usual one."""
    named = os.environ.get("HF_HUB_CACHE")
    top = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return [Path(named or f"{top}/hub").expanduser()]


def donors(
    items: Iterable[Item],
    manifest: Manifest,
    *,
    folders: Sequence[Path],
    kept: Sequence[Kept],
    disk: Path,
) -> list[Donor]:
    """Return for each of *items* the first file that may be it: in *folders*, caches, the store.

    *kept* is what the store holds; of it, files of the same hash are taken, whatever their commit.
    """
    device = disk.stat().st_dev
    by_digest = {
        item.digest: one.folder / item.path
        for one in kept
        if one.complete
        for item in one.manifest.items
    }
    found = []
    for item in items:
        named = [folder / item.path for folder in folders]
        cached = [path for cache in caches() for path in _cached(cache, manifest, item)]
        stored = [by_digest[item.digest]] if item.digest in by_digest else []
        for path in (*named, *stored, *cached):
            if (real := _file(path, item.size)) is not None:
                found.append(Donor(item, real, real.stat().st_dev == device))
                break
    return found


def adopt(donors: Sequence[Donor], staging: Staging, record: Record) -> Iterator[Event]:
    """Take over *donors* into *staging*; yields what happens. What is not right is left out.

    Each is recorded when it is proved: a run that is killed goes on with the next one.
    """
    tally = Tally("taking over", {donor.item.path: donor.item.size for donor in donors})
    tasks = {
        donor.item.path: partial(
            _take, donor, staging.files / donor.item.path, partial(tally.count, donor.item.path)
        )
        for donor in donors
    }
    for taken in each(tasks, tally):
        if isinstance(taken, Moved):
            yield taken
            continue
        donor, result = taken.donor, taken.result
        if taken.how is not None and result.why is None and result.found is not None:
            record.add(donor.item, result.found)
            yield Adopted(
                path=donor.item.path, bytes=donor.item.size, how=taken.how, of=str(donor.path)
            )
        else:
            (staging.files / donor.item.path).unlink(missing_ok=True)
            yield Told(text=f"{donor.path} is not taken over: {result.why}")


def _cached(cache: Path, manifest: Manifest, item: Item) -> list[Path]:
    """Return where the hub's client keeps a file: by its hash, or in the commit's snapshot."""
    folder = cache / f"models--{manifest.repo.replace('/', '--')}"
    return [folder / "blobs" / item.digest, folder / "snapshots" / manifest.revision / item.path]


def _file(path: Path, size: int) -> Path | None:
    """Return the regular file that *path* leads to, if it is of that size."""
    try:
        real = path.resolve(strict=True)
        found = real.stat()
    except (OSError, RuntimeError):
        return None
    fits = stat.S_ISREG(found.st_mode) and found.st_size == size
    return real if fits and os.access(real, os.R_OK) else None


def _take(donor: Donor, target: Path, count: Callable[[int], None]) -> _Taken:
    """Take *donor* over as *target* and read it; what can't be written is raised as what it is."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        how = _named(donor, target)
        if how is None:
            return _Taken(donor, "copy", _copied(donor, target, count))
    except OSError as error:
        return _Taken(donor, None, Hashed(donor.item, None, str(error.strerror or error)))
    return _Taken(donor, how, prove(donor.item, target, count=count))


def _named(donor: Donor, target: Path) -> How | None:
    """Give the donor's bytes the name *target* without a copy; None where that can't be."""
    if not donor.near:
        return None
    if _cloned(donor.path, target):
        return "reflink"
    if donor.item.sha256 is None:
        # Why not: people edit configurations in place, and a second name would change with it.
        return None
    try:
        os.link(donor.path, target, follow_symlinks=False)
    except OSError:
        # Another owner, too many links, or a file system that has none.
        return None
    return "hard link"


def _copied(donor: Donor, target: Path, count: Callable[[int], None]) -> Hashed:
    """Copy the donor's bytes to *target*, hashed on the way."""
    item, hasher = donor.item, donor.item.hasher()
    # Why also here: a link that was refused makes a copy of what should have cost no room.
    space.check([item], 0, space.look(target.parent), target.parent)
    buffer = memoryview(bytearray(_READ))
    with donor.path.open("rb", buffering=0) as source, Sink(target) as copy:
        while got := source.readinto(buffer):
            copy.write(buffer[:got])
            hasher.update(buffer[:got])
            count(got)
    good = copy.stat.st_size == item.size and hasher.hexdigest() == item.digest
    return Hashed(item, copy.stat, None if good else "its hash is not the hub's")


def _cloned(path: Path, target: Path) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import fcntl  # noqa: PLC0415

    with path.open("rb") as source, target.open("xb") as clone:
        try:
            fcntl.ioctl(clone.fileno(), _CLONE, source.fileno())
        except OSError:
            target.unlink()
            return False
    return True
