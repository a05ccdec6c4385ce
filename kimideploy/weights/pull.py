"""Pull a checkpoint: the planned files of one commit, every byte proved, whole or not at all.

Whatever ends a pull, the next one goes on from there: what is proved stays proved, what is in
flight is taken up at its last good block.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import WeightsError
from kimideploy.weights import code, space
from kimideploy.weights.adopt import adopt, donors
from kimideploy.weights.events import Adopted, Damaged, Event, Moved, Published, Resolved, Told
from kimideploy.weights.fetch import Fetch
from kimideploy.weights.hashing import hashed
from kimideploy.weights.hub import COMMIT
from kimideploy.weights.manifest import MANIFEST, OWN, Item, Manifest, encode, read_manifest
from kimideploy.weights.resolve import Line, Tell, Ways, begun, found, known, published
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
    began = time.monotonic()
    line = Line(ways, tell)
    folder = home(top, wanted.repo, wanted.quant)
    revision = wanted.revision
    if revision is None or not COMMIT.fullmatch(revision):
        revision = begun(folder, wanted, tell) or published(folder, wanted, ways)
    manifest = known(folder, wanted, revision)
    if manifest is None:
        manifest = _asked(wanted, folder, revision, line)
    final = folder / manifest.revision
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
    if not _stands(final, manifest, tell):
        space.writable(folder)
        staging = Staging(final)
        with claimed(staging):
            kept = [one for one in every(top) if one.folder != final]
            bring = _Bring(manifest, staging, line, kept, tell)
            if final.is_dir():
                bring.mend(final, _wrong(final, manifest, tell))
                staging.remove()
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


def _asked(wanted: Wanted, folder: Path, revision: str | None, line: Line) -> Manifest:
    """Return the hub's manifest; where it can't be had, say what is here all the same."""
    try:
        return found(wanted, line, line.repository(wanted.repo, revision or wanted.revision))
    except WeightsError as error:
        here = [kept.name for kept in folder.glob("*") if COMMIT.fullmatch(kept.name)]
        if wanted.revision is not None or len(here) != 1 or line.ways.offline:
            raise
        raise WeightsError(
            error.message, hint=f"commit {here[0][:12]} is here: --offline takes it as it is"
        ) from error


def repair(
    folder: Path, manifest: Manifest, damaged: Sequence[Item], ways: Ways, tell: Tell
) -> int:
    """Fetch *damaged* anew into the published *folder*, one file replaced at a time.

    Returns the bytes that were fetched.
    """
    staging = Staging(folder)
    line = Line(ways, tell)
    with claimed(staging):
        bring = _Bring(manifest, staging, line, (), tell)
        bring.mend(folder, damaged)
        staging.remove()
    return bring.fetched


class _Bring:
    """Brings files into a staging folder: taken over, gone on with, or fetched."""

    def __init__(
        self, manifest: Manifest, staging: Staging, line: Line, kept: Sequence[Kept], tell: Tell
    ) -> None:
        self._manifest, self._staging, self._line = manifest, staging, line
        self._kept, self._tell = kept, tell
        self.fetched = 0

    def all(self, wanted: Wanted) -> None:
        """Bring every file, and publish the folder."""
        staging, manifest = self._staging, self._manifest
        staging.begin(manifest)
        (staging.folder / "asked").write_text(wanted.revision or "", encoding="utf-8")
        self._items(manifest.items)
        # Why once more: a folder in the making may have been touched since.
        record = Record(staging.files)
        lost = [item.path for item in manifest.items if not record.holds(item)]
        if lost:
            raise WeightsError(f"{lost[0]} changed while it was being pulled; run it again")
        staging.publish()

    def mend(self, final: Path, damaged: Sequence[Item]) -> None:
        """Bring *damaged* and put them in the place of those in *final*."""
        known_as = final / OWN / MANIFEST
        known_as.parent.mkdir(exist_ok=True)
        text = encode(self._manifest)
        if not known_as.exists() or known_as.read_bytes() != text:
            write_whole(known_as, text)
        if not damaged:
            return
        staging = self._staging
        staging.begin(self._manifest)
        self._items(damaged, final)
        record = Record(final)
        for item in damaged:
            target = final / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (staging.files / item.path).replace(target)
            record.add(item, target.stat())

    def _items(self, items: Sequence[Item], final: Path | None = None) -> None:
        staging, ways = self._staging, self._line.ways
        record = Record(staging.files)
        missing = [item for item in items if not record.holds(item)]
        missing = self._adopted(missing, record)
        if missing and ways.offline:
            size = sum(item.size for item in missing) / 1e9
            raise WeightsError(
                f"{len(missing)} of {len(items)} files ({size:,.1f} GB) are not on this machine,"
                f" and --offline or HF_HUB_OFFLINE forbids to fetch them: {missing[0].path}",
                hint="--adopt FOLDER names a folder that has them",
            )
        parts = [
            staging.place(item).with_name(f"{staging.place(item).name}.part") for item in missing
        ]
        space.check(missing, space.taken(parts), space.look(staging.folder), staging.final.parent)
        self._reserve(missing, parts)
        small = [item for item in missing if item.sha256 is None]
        self._fetch(small, record)
        if final is None:
            self._gate(staging.files)
        self._fetch([item for item in missing if item.sha256 is not None], record)
        if final is None:
            self._gate(staging.files)

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

    def _fetch(self, items: Sequence[Item], record: Record) -> None:
        if not items:
            return
        line, staging = self._line, self._staging
        repository = line.repository(self._manifest.repo, self._manifest.revision)
        store = any(item.xet is not None for item in items) and line.ways.xet and available()
        with line.wire(repository) as wire:
            routes = Routes(wire, Xet(repository, line.pause) if store else None)
            run = Fetch(
                [(item, staging.place(item), staging.files / item.path) for item in items],
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
                    self._tell(event)
            finally:
                routes.close()
                self.fetched += run.fetched
        line.stop.clear()

    def _gate(self, folder: Path) -> None:
        """Raise WeightsError for code that was not accepted, before the large files come."""
        manifest, ways = self._manifest, self._line.ways
        if all((folder / item.path).exists() for item in manifest.code):
            place = self._staging.final.parent
            note = code.gate(folder, manifest, place, pinned=ways.code, accept=ways.accept_code)
            if note is not None:
                self._tell(Told(text=note))


def _stands(final: Path, manifest: Manifest, tell: Tell) -> bool:
    """Return whether *final* holds *manifest* as it was proved; what was touched is read again."""
    if not final.is_dir() or read_manifest(final) != manifest:
        return False

    def told(event: Event) -> None:
        # Why not damage: it is told when it is mended, under the lock.
        if not isinstance(event, Damaged):
            tell(event)

    return not _wrong(final, manifest, told)


def _wrong(final: Path, manifest: Manifest, tell: Tell) -> list[Item]:
    """Return the files of a published folder that are missing or changed; unchanged is not read."""
    record = Record(final)
    doubtful = [item for item in manifest.items if not record.holds(item)]
    wrong = []
    for result in hashed([(item, final / item.path) for item in doubtful]):
        if isinstance(result, Moved):
            tell(result)
        elif result.why is None and result.found is not None:
            if os.access(final, os.W_OK):
                record.add(result.item, result.found)
        else:
            wrong.append(result.item)
            tell(Damaged(path=result.item.path, why=result.why or "", mended=True))
    return wrong
