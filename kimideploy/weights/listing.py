"""What the store holds, and what of it can go."""

from __future__ import annotations

import shutil
from pathlib import Path

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights import code, load, space
from kimideploy.weights.store import Kept, Staging, every, held
from kimideploy.weights.types import Entry, Listing


@space.disk()
def listing(top: Path, *, with_code: bool = False, measure: bool = False) -> Listing:
    """Return all that is below *top*; *measure* reads some seconds from each folder."""
    entries = tuple(_entry(kept, with_code=with_code, measure=measure) for kept in every(top))
    free = shutil.disk_usage(top).free if top.is_dir() else None
    return Listing(str(top), entries, free)


@space.disk()
def prunable(top: Path, *, old: bool) -> list[Path]:
    """Return pulls that have not ended and nobody is at, and if *old* all commits but the newest.

    The newest of a checkpoint is the one that was published last.
    """
    going = [
        path
        for depth in ("*/*", "*/*/*")
        for pattern in (".*.pull", ".gone-*")
        for path in top.glob(f"{depth}/{pattern}")
        if path.is_dir() and not held(Staging(path.with_name(path.name[1:].removesuffix(".pull"))))
    ]
    if old:
        groups: dict[Path, list[Path]] = {}
        for kept in every(top):
            if kept.complete:
                groups.setdefault(kept.folder.parent, []).append(kept.folder)
        for group in groups.values():
            group.sort(key=lambda folder: folder.stat().st_ctime_ns)
            going += group[:-1]
    return sorted(going)


def remove(folder: Path) -> None:
    """Remove a folder of the store: first its name, then its bytes, so that no half is seen."""
    gone = folder.with_name(f".gone-{folder.name.removeprefix('.gone-').lstrip('.')}")
    with space.disk():
        if gone != folder:
            folder.rename(gone)
        shutil.rmtree(gone)


def disk_of(folder: Path) -> int:
    """Return the bytes that a folder of the store takes on the disk."""
    return space.taken(path for path in folder.rglob("*") if path.is_file())


def code_of(kept: Kept) -> tuple[CodePin, ...]:
    """Return the hashes of the code in a folder that is complete."""
    try:
        return code.pins_of(kept.folder, kept.manifest)
    except OSError as error:
        raise WeightsError(
            f"{kept.folder}: code can't be read: {error.strerror or error}",
            hint="kimideploy weights verify --repair",
        ) from error


def _entry(kept: Kept, *, with_code: bool, measure: bool) -> Entry:
    manifest = kept.manifest
    look = kept.complete and with_code
    sizes = [(item.path, item.size) for item in manifest.items]
    return Entry(
        repo=manifest.repo,
        revision=manifest.revision,
        folder=str(kept.folder),
        complete=kept.complete,
        files=len(manifest.items),
        bytes=manifest.size,
        disk=disk_of(kept.folder),
        quant=manifest.quant,
        busy=not kept.complete and held(_staging(kept)),
        code=code_of(kept) if look else (),
        imports=tuple(
            (item.path, code.imports_of((kept.folder / item.path).read_bytes()))
            for item in manifest.code
        )
        if look
        else (),
        load=load.look(kept.folder, sizes, measure=measure) if kept.complete else None,
    )


def _staging(kept: Kept) -> Staging:
    return Staging(kept.folder.with_name(kept.manifest.revision))
