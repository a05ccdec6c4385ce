"""Take over files that are on this machine already: the hub's cache, a folder, another commit.

A clone of the blocks (reflink) comes first, as it costs nothing and stays ours whatever happens to
the other; then a second name (hard link); a copy only from another disk. All are hashed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.weights.events import Adopted, Event, How, Moved, Told
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.seen import Record
from kimideploy.weights.store import Kept, Staging

#: ioctl FICLONE of linux/fs.h
_CLONE = 0x40049409


@dataclass(frozen=True, slots=True)
class Donor:
    """A file that may be an item: of its size, in a place where it is to be expected."""

    item: Item
    path: Path
    #: whether it lies on the disk the weights go to, where taking it over costs no room
    near: bool


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
    """Take over *donors* into *staging*; yields what happens. What is not right is left out."""
    taken: dict[str, tuple[Donor, How]] = {}
    for donor in donors:
        target = staging.files / donor.item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            taken[donor.item.path] = donor, _take(donor.path, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            yield Told(text=f"{donor.path} can't be taken over: {error.strerror or error}")
    files = [(donor.item, staging.files / donor.item.path) for donor, _ in taken.values()]
    for result in hashed(files):
        if isinstance(result, Moved):
            yield result
            continue
        donor, how = taken[result.item.path]
        target = staging.files / result.item.path
        if result.why is None and result.found is not None:
            record.add(result.item, result.found)
            yield Adopted(
                path=result.item.path, bytes=result.item.size, how=how, of=str(donor.path)
            )
        else:
            target.unlink(missing_ok=True)
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


def _take(path: Path, target: Path) -> How:
    if _cloned(path, target):
        return "reflink"
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        # Another disk, another owner, too many links, or a file system that has none.
        shutil.copyfile(path, target, follow_symlinks=False)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return "copy"
    return "hard link"


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
