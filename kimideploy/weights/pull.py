"""Pull a checkpoint: the planned files of one commit, every byte proved, whole or not at all.

Whatever ends a pull, the next one goes on from there: what is proved stays proved, what is in
flight is taken up at its last good block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights import code, space
from kimideploy.weights.adopt import adopt, donors
from kimideploy.weights.events import Adopted, Event, Moved, Published, Resolved, Told
from kimideploy.weights.fetch import Fetch
from kimideploy.weights.forecast import together
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.mend import put, stands, wrong
from kimideploy.weights.resolve import Line, Tell, Ways, planned
from kimideploy.weights.routes import Routes
from kimideploy.weights.seen import Record
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Kept, Staging, claimed, every, home, write_whole
from kimideploy.weights.structure import faults
from kimideploy.weights.xet import Xet, available


@dataclass(frozen=True, slots=True)
class Pulled:
    """A folder that is complete, and what is in it."""

    folder: Path
    manifest: Manifest


def pull(wanted: Wanted, top: Path, ways: Ways, tell: Tell) -> Pulled:
    """Return the folder of *wanted* below *top*, complete and proved.

    Raises WeightsError for integrity, space and the hub, MachineError for what can't be written,
    BusyError while another pull of the same commit runs. What was fetched until then is kept.
    """
    return pull_all((wanted,), top, ways, tell)[0]


@space.disk()
def pull_all(wishes: Sequence[Wanted], top: Path, ways: Ways, tell: Tell) -> tuple[Pulled, ...]:
    """Return the folders of *wishes*, as `pull` does; raises what it raises.

    What is to come is known of each of them, and has room, before the first of them is brought: a
    draft model that is gated is found out before 595 GB have come.
    """
    line = Line(ways, tell)
    manifests = [planned(w, home(top, w.repo, w.quant), line) for w in wishes]
    if len(manifests) > 1:
        together(manifests, top, ways)
    return tuple(
        _pulled(wanted, manifest, top, line)
        for wanted, manifest in zip(wishes, manifests, strict=True)
    )


def _pulled(wanted: Wanted, manifest: Manifest, top: Path, line: Line) -> Pulled:
    began, tell = time.monotonic(), line.tell
    staging = Staging.of(manifest, top)
    final = staging.final
    tell(
        Resolved(
            repo=manifest.repo,
            revision=manifest.revision,
            files=len(manifest.items),
            bytes=manifest.size,
            folder=str(final),
        )
    )
    fetched = 0
    # Why without the lock: what is whole needs nothing, and may be someone else's to write.
    if stands(final, manifest, tell):
        if not line.ways.accept_code:
            code.same(final, manifest, final.parent, wanted.code)
        staging.sweep()
    else:
        space.writable(final.parent)
        with claimed(staging):
            kept = [one for one in every(top) if one.folder != final]
            bring = _Bring(manifest, staging, line, kept)
            if final.is_dir():
                bring.mend(wrong(final, manifest, tell))
            else:
                bring.all(wanted)
            fetched = bring.fetched
    for fault in faults(final, [item.path for item in manifest.items]):
        tell(Told(text=f"the publisher's own files do not agree: {fault}"))
    tell(
        Published(
            folder=str(final),
            revision=manifest.revision,
            files=len(manifest.items),
            bytes=manifest.size,
            fetched=fetched,
            kept=max(manifest.size - fetched, 0),
            seconds=time.monotonic() - began,
        )
    )
    return Pulled(final, manifest)


@space.disk()
def repair(
    folder: Path, manifest: Manifest, damaged: Sequence[Item], ways: Ways, tell: Tell
) -> int:
    """Fetch *damaged* anew into the published *folder*, one file replaced at a time.

    Returns the bytes that were fetched.
    """
    staging = Staging(folder)
    line = Line(ways, tell)
    with claimed(staging):
        bring = _Bring(manifest, staging, line, ())
        bring.mend(damaged)
    return bring.fetched


class _Bring:
    """Brings files into a staging folder: taken over, gone on with, or fetched."""

    def __init__(
        self, manifest: Manifest, staging: Staging, line: Line, kept: Sequence[Kept]
    ) -> None:
        self._manifest, self._staging, self._line = manifest, staging, line
        self._kept, self._tell = kept, line.tell
        #: files and bytes that are brought in all
        self._whole = 0, 0
        self.fetched = 0

    def all(self, wanted: Wanted) -> None:
        """Bring every file, and publish the folder."""
        staging, manifest = self._staging, self._manifest
        staging.begin(manifest)
        write_whole(staging.folder / "asked", (wanted.revision or "").encode())
        self._items(manifest.items, lambda: self._gate(wanted.code))
        # Why once more: a folder in the making may have been touched since.
        record = Record(staging.files)
        lost = [item.path for item in manifest.items if not record.holds(item)]
        if lost:
            raise WeightsError(f"{lost[0]} changed while it was being pulled; run it again")
        staging.publish()

    def mend(self, damaged: Sequence[Item]) -> None:
        """Bring *damaged* and put them in the place of those in the published folder."""
        if damaged:
            self._staging.begin(self._manifest)
            self._items(damaged, lambda: None)
        put(self._staging, damaged, self._manifest)
        self._staging.remove()

    def _items(self, items: Sequence[Item], gate: Callable[[], None]) -> None:
        """Bring *items*; *gate* may refuse once the small ones are here, and when all are."""
        staging, ways = self._staging, self._line.ways
        record = Record(staging.files)
        self._whole = len(items), sum(item.size for item in items)
        missing = self._found([item for item in items if not record.holds(item)], record)
        missing = self._adopted(missing, record)
        if missing and ways.offline:
            size = sum(item.size for item in missing) / 1e9
            raise WeightsError(
                f"{len(missing)} of {len(items)} files ({size:,.1f} GB) are not on this machine,"
                f" and --offline or HF_HUB_OFFLINE forbids to fetch them: {missing[0].path}",
                hint="--adopt FOLDER names a folder that has them",
            )
        parts = [staging.part(item.path) for item in missing]
        space.check(missing, space.taken(parts), space.look(staging.folder), staging.final.parent)
        self._reserve(missing, parts)
        small = [item for item in missing if item.sha256 is None]
        large = [item for item in missing if item.sha256 is not None]
        self._fetch(small, large, record)
        gate()
        self._fetch(large, (), record)
        gate()

    def _found(self, missing: Sequence[Item], record: Record) -> list[Item]:
        """Return the items of *missing* that do not lie here, proved.

        A run that was killed may have given a file its name and not come to write it down.
        """
        lost = []
        for item in missing:
            path = self._staging.files / item.path
            if path.is_file() and not path.is_symlink():
                lost.append((item, path))
        here = set()
        for result in hashed(lost):
            if isinstance(result, Moved):
                self._tell(result)
            elif result.why is None and result.found is not None:
                record.add(result.item, result.found)
                here.add(result.item.path)
        return [item for item in missing if item.path not in here]

    def _adopted(self, missing: Sequence[Item], record: Record) -> list[Item]:
        """Return the items of *missing* that nothing on this machine could stand in for."""
        staging, ways = self._staging, self._line.ways
        here = donors(
            missing, self._manifest, folders=ways.adopt, kept=self._kept, disk=staging.folder
        )
        far = [donor.item for donor in here if not donor.near]
        space.check(far, 0, space.look(staging.folder), staging.final.parent)
        taken = set()
        for event in adopt(here, staging, record):
            if isinstance(event, Adopted):
                taken.add(event.path)
            self._tell(event)
        return [item for item in missing if item.path not in taken]

    def _reserve(self, items: Sequence[Item], parts: Sequence[Path]) -> None:
        fresh = [part for part in parts if not part.exists()]
        try:
            for item, part in zip(items, parts, strict=True):
                space.reserve(part, item.size)
        except BaseException:
            for part in fresh:
                part.unlink(missing_ok=True)
            raise

    def _fetch(self, items: Sequence[Item], later: Sequence[Item], record: Record) -> None:
        """Fetch *items*; *later* are those that will come after them."""
        if not items:
            return
        line, staging = self._line, self._staging
        repository = line.repository(self._manifest.repo, self._manifest.revision)
        store = any(item.xet is not None for item in items) and line.ways.xet and available()
        with line.wire(repository) as wire:
            routes = Routes(wire, Xet(repository, line.pause) if store else None)
            run = Fetch(
                [(item, staging.place(item.path), staging.files / item.path) for item in items],
                routes,
                workers=line.ways.workers,
                stall=line.ways.stall,
                rate=line.ways.rate,
                pause=line.pause,
                stop=line.stop,
                arrived=record.add,
            )
            try:
                for event in run.run():
                    self._tell(self._of_all(event, items, later))
            finally:
                routes.close()
                self.fetched += run.fetched
        line.stop.clear()

    def _of_all(self, event: Event, items: Sequence[Item], later: Sequence[Item]) -> Event:
        """Return *event* with its progress told of all files, those that are here included."""
        if not isinstance(event, Moved):
            return event
        files, size = self._whole
        away = [*items, *later]
        before = size - sum(item.size for item in away)
        done = before + event.done
        return msgspec.structs.replace(
            event,
            done=done,
            total=size,
            kept=before + event.kept,
            files_done=files - len(away) + event.files_done,
            files=files,
            eta=(size - done) / event.rate if event.rate else None,
        )

    def _gate(self, pinned: tuple[CodePin, ...] | None) -> None:
        """Raise WeightsError for code that was not accepted, before the large files come."""
        manifest, folder = self._manifest, self._staging.files
        if all((folder / item.path).exists() for item in manifest.code):
            place, accept = self._staging.final.parent, self._line.ways.accept_code
            note = code.gate(folder, manifest, place, pinned=pinned, accept=accept)
            if note is not None:
                self._tell(Told(text=note))
