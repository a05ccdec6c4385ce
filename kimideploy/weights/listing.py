"""What the store holds, what a pull would do, and what can go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kimideploy.errors import MachineError, WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights import code, load, space
from kimideploy.weights.adopt import donors
from kimideploy.weights.hub import COMMIT
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.part import BLOCK
from kimideploy.weights.resolve import Line, Ways, found, known
from kimideploy.weights.seen import Record
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Kept, Staging, every, held, home
from kimideploy.weights.types import Entry, Forecast, Foreseen, Listing, Whereabouts


def listing(top: Path, *, with_code: bool = False, measure: bool = False) -> Listing:
    """Return all that is below *top*; *measure* reads some seconds from each folder."""
    entries = tuple(_entry(kept, with_code=with_code, measure=measure) for kept in every(top))
    free = shutil.disk_usage(top).free if top.is_dir() else None
    return Listing(str(top), entries, free)


def foresee(wanted: Wanted, top: Path, ways: Ways) -> Forecast:
    """Return what a pull of *wanted* would do now; nothing is written."""
    line = Line(ways)
    folder = home(top, wanted.repo, wanted.quant)
    pinned = wanted.revision if COMMIT.fullmatch(wanted.revision or "") else None
    manifest = known(folder, wanted, pinned) or found(
        wanted, line, line.repository(wanted.repo, wanted.revision)
    )
    staging = Staging(folder / manifest.revision)
    disk = _existing(folder)
    states = _states(manifest, staging, disk, top, ways)
    fetch = sum(one.left for one in states)
    room = space.look(disk)
    return Forecast(
        repo=manifest.repo,
        revision=manifest.revision,
        folder=str(staging.final),
        files=tuple(states),
        bytes=manifest.size,
        fetch=fetch,
        free=room.free,
        short=space.short(fetch, room),
        code=tuple(item.path for item in manifest.code),
    )


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
    try:
        if gone != folder:
            folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise MachineError(f"{folder} can't be removed: {error.strerror or error}") from error


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


def _states(
    manifest: Manifest, staging: Staging, disk: Path, top: Path, ways: Ways
) -> list[Foreseen]:
    final, begun = Record(staging.final), Record(staging.files)
    open_items = [i for i in manifest.items if not final.holds(i) and not begun.holds(i)]
    ours = {
        donor.item.path
        for donor in donors(
            open_items,
            manifest,
            folders=ways.adopt,
            kept=every(top),
            disk=disk,
        )
    }
    found = []
    for item in manifest.items:
        have = _begun(staging, item)
        state: Whereabouts
        if item not in open_items:
            state, left = "here", 0
        elif item.path in ours:
            state, left = "to take over", 0
        elif have:
            state, left = "begun", item.size - have
        else:
            state, left = "to fetch", item.size
        found.append(Foreseen(item.path, item.size, item.digest, state, left))
    return found


def _begun(staging: Staging, item: Item) -> int:
    """Return the bytes that the ledger of *item* claims, not proved here."""
    place = staging.place(item)
    try:
        lines = place.with_name(f"{place.name}.ledger").read_bytes().count(b"\n") - 1
    except OSError:
        return 0
    return min(max(lines, 0) * BLOCK, item.size)


def _staging(kept: Kept) -> Staging:
    return Staging(kept.folder.with_name(kept.manifest.revision))


def _existing(folder: Path) -> Path:
    """Return *folder* or the nearest folder above it that is there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder if os.access(folder, os.R_OK) else Path("/")
