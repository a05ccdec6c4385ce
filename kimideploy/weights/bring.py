"""Bring files into a staging folder: taken over, gone on with, or fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.files import write_whole
from kimideploy.quantities import decimal
from kimideploy.weights import space
from kimideploy.weights.adopt import adopt, donors
from kimideploy.weights.events import Adopted, Event, Moved, Told
from kimideploy.weights.fetch import Fetch
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.mend import put
from kimideploy.weights.resolve import Line
from kimideploy.weights.routes import Routes
from kimideploy.weights.seen import Record
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Kept, Staging
from kimideploy.weights.xet import Xet, available

#: may refuse the code that has come, before the large files come and when all is here; what it
#: returns is told
Gate = Callable[[], str | None]


class Bring:
    """Brings files into a staging folder: taken over, gone on with, or fetched."""

    def __init__(
        self, manifest: Manifest, staging: Staging, line: Line, kept: Sequence[Kept]
    ) -> None:
        self._manifest, self._staging, self._line = manifest, staging, line
        self._kept, self._tell = kept, line.tell
        #: files and bytes that are brought in all
        self._whole = 0, 0
        self.fetched = 0

    def all(self, wanted: Wanted, gate: Gate) -> None:
        """Bring every file, and publish the folder."""
        staging, manifest = self._staging, self._manifest
        staging.begin(manifest)
        write_whole(staging.folder / "asked", (wanted.revision or "").encode())
        self._items(manifest.items, gate)
        # Why once more: a folder in the making may have been touched since.
        record = Record(staging.files)
        lost = [item.path for item in manifest.items if not record.holds(item)]
        if lost:
            raise WeightsError(f"{lost[0]} changed while it was being pulled; run it again")
        staging.publish()

    def mend(self, damaged: Sequence[Item], gate: Gate) -> None:
        """Bring *damaged* and put them in the place of those in the published folder."""
        if damaged:
            self._staging.begin(self._manifest)
            self._items(damaged, gate)
        put(self._staging, damaged, self._manifest)
        self._staging.remove()

    def _items(self, items: Sequence[Item], gate: Gate) -> None:
        """Bring *items*; *gate* may refuse once the small ones are here, and when all are."""
        staging, ways = self._staging, self._line.ways
        record = Record(staging.files)
        self._whole = len(items), sum(item.size for item in items)
        missing = self._found([item for item in items if not record.holds(item)], record)
        missing = self._adopted(missing, record)
        if missing and ways.offline:
            size = decimal(sum(item.size for item in missing))
            names = ", ".join(item.path for item in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""  # noqa: PLR2004
            raise WeightsError(
                f"{len(missing)} of {len(items)} files ({size}) are not on this machine, and"
                f" --offline or HF_HUB_OFFLINE forbids to fetch them: {names}{more}",
                hint="--adopt FOLDER names a folder that has them",
            )
        parts = [staging.part(item.path) for item in missing]
        space.check(missing, space.taken(parts), space.look(staging.folder), staging.final.parent)
        self._reserve(missing, parts)
        small = [item for item in missing if item.sha256 is None]
        large = [item for item in missing if item.sha256 is not None]
        self._fetch(small, large, record)
        self._pass(gate)
        self._fetch(large, (), record)
        self._pass(gate)

    def _pass(self, gate: Gate) -> None:
        note = gate()
        if note is not None:
            self._tell(Told(text=note))

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
