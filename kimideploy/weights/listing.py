"""What the store holds, and what of it can go."""

from __future__ import annotations

import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights import code, load, space
from kimideploy.weights.forecast import brought
from kimideploy.weights.manifest import MANIFEST, OWN
from kimideploy.weights.store import Kept, Staging, claimed, every, held, scan
from kimideploy.weights.types import Entry, Listing

#: what is being removed
_GONE = ".gone-"


@dataclass(frozen=True, slots=True)
class Pruning:
    """What can go, and the bytes of disk that each frees.

    `busy` stays, as someone pulls into it, and so does `used`, with who serves from it.
    """

    going: tuple[tuple[Path, int], ...]
    busy: tuple[Path, ...]
    used: tuple[tuple[Path, str], ...] = ()

    @property
    def freed(self) -> int:
        """Bytes of disk that are free afterwards."""
        return sum(size for _, size in self.going)


@space.disk()
def listing(top: Path, *, with_code: bool = False, measure: bool = False) -> Listing:
    """Return all that is below *top*; *measure* reads some seconds from each folder."""
    found, unreadable = scan(top)
    entries = tuple(_entry(kept, with_code=with_code, measure=measure) for kept in found)
    free = shutil.disk_usage(top).free if top.is_dir() else None
    return Listing(str(top), entries, free, tuple(unreadable))


@space.disk()
def prunable(top: Path, *, old: bool, in_use: Mapping[Path, str] | None = None) -> Pruning:
    """Return pulls that have not ended and nobody is at, and if *old* all commits but the newest.

    The newest of a checkpoint is the one that was pulled last. What lies in or above a path of
    *in_use* stays.
    """
    begun = {
        path
        for depth in ("*/*", "*/*/*")
        for pattern in (".*.pull", f"{_GONE}*")
        for path in top.glob(f"{depth}/{pattern}")
        if path.is_dir()
    }
    busy = [path for path in begun if not path.name.startswith(_GONE) and held(Staging.at(path))]
    going = [path for path in begun if path not in busy]
    if old:
        groups: dict[Path, list[Path]] = {}
        for kept in every(top):
            if kept.complete:
                groups.setdefault(kept.folder.parent, []).append(kept.folder)
        for group in groups.values():
            group.sort(key=lambda folder: (folder / OWN / MANIFEST).stat().st_mtime_ns)
            going += group[:-1]
    users = {path.resolve(): who for path, who in (in_use or {}).items()}
    used = {
        folder: who
        for folder in going
        for path, who in users.items()
        if path.is_relative_to(folder.resolve())
    }
    going = [folder for folder in going if folder not in used]
    return Pruning(tuple(_freed(sorted(going))), tuple(sorted(busy)), tuple(sorted(used.items())))


def _freed(folders: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    """Yield the disk that goes with each: bytes that another commit has a name for, too, stay."""
    names: Counter[tuple[int, int]] = Counter()
    for folder in folders:
        size = 0
        for path in folder.rglob("*"):
            found = path.lstat()
            inode = (found.st_dev, found.st_ino)
            names[inode] += 1
            if stat.S_ISREG(found.st_mode) and names[inode] == found.st_nlink:
                size += found.st_blocks * 512
        yield folder, size


@space.disk()
def remove(folder: Path) -> None:
    """Remove a folder of the store: first its name, then its bytes, so that no half is seen.

    BusyError where someone has begun to pull into it meanwhile.
    """
    if not folder.name.startswith(_GONE):
        gone = folder.with_name(f"{_GONE}{folder.name.lstrip('.')}-{token_hex(4)}")
        with claimed(Staging.at(folder)):
            folder.rename(gone)
        folder = gone
    shutil.rmtree(folder)


def disk_of(folder: Path) -> int:
    """Return the bytes that a folder of the store takes on the disk."""
    return space.taken(path for path in folder.rglob("*") if path.is_file())


def code_of(kept: Kept) -> tuple[CodePin, ...]:
    """Return the hashes of the code in a folder that is complete."""
    try:
        return code.pins_of(kept.folder.joinpath, kept.manifest)
    except OSError as error:
        raise WeightsError(
            f"{kept.folder}: code can't be read: {error.strerror or error}",
            hint="kimideploy weights verify --repair",
        ) from error


def _entry(kept: Kept, *, with_code: bool, measure: bool) -> Entry:
    manifest = kept.manifest
    staging = Staging.at(kept.folder)
    look = kept.complete and with_code
    sizes = [(item.path, item.size) for item in manifest.items]
    return Entry(
        repo=manifest.repo,
        revision=manifest.revision,
        folder=str(kept.folder),
        have=manifest.size if kept.complete else brought(manifest, staging),
        complete=kept.complete,
        files=len(manifest.items),
        bytes=manifest.size,
        disk=disk_of(kept.folder),
        quant=manifest.quant,
        busy=not kept.complete and held(staging),
        code=code_of(kept) if look else (),
        imports=tuple(
            (item.path, code.imports_of((kept.folder / item.path).read_bytes()))
            for item in manifest.code
        )
        if look
        else (),
        load=load.look(kept.folder, sizes, measure=measure) if kept.complete else None,
    )
