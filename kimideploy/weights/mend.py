"""A published folder that is not what it was: found out, and put right one file at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from kimideploy.weights.events import Damaged, Event, Moved
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import MANIFEST, OWN, Item, Manifest, encode, read_manifest
from kimideploy.weights.seen import Record
from kimideploy.weights.store import Staging, write_whole

Tell = Callable[[Event], None]


def stands(final: Path, manifest: Manifest, tell: Tell) -> bool:
    """Return whether *final* holds *manifest* as it was proved; what was touched is read again."""
    there = read_manifest(final) if final.is_dir() else None
    if there is None or there.proofs != manifest.proofs:
        return False

    def told(event: Event) -> None:
        # Why not damage: it is told when it is mended, under the lock.
        if not isinstance(event, Damaged):
            tell(event)

    return not wrong(final, manifest, told)


def wrong(final: Path, manifest: Manifest, tell: Tell) -> list[Item]:
    """Return the files of a published folder that are missing or changed; unchanged is not read."""
    record = Record(final)
    doubtful = [item for item in manifest.items if not record.holds(item)]
    found = []
    for result in hashed([(item, final / item.path) for item in doubtful]):
        if isinstance(result, Moved):
            tell(result)
        elif result.why is None and result.found is not None:
            if os.access(final, os.W_OK):
                record.add(result.item, result.found)
        else:
            found.append(result.item)
            tell(Damaged(path=result.item.path, why=result.why or "", mended=True))
    return found


def put(staging: Staging, items: Sequence[Item], manifest: Manifest) -> None:
    """Put the proved *items* of *staging* in the place of those in the published folder."""
    final = staging.final
    known_as = final / OWN / MANIFEST
    known_as.parent.mkdir(exist_ok=True)
    text = encode(manifest)
    if not known_as.exists() or known_as.read_bytes() != text:
        write_whole(known_as, text)
    record = Record(final)
    for item in items:
        target = final / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging.files / item.path).replace(target)
        record.add(item, target.stat())
