"""A published folder that is not what it was: found out, and put right one file at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kimideploy.errors import WeightsError
from kimideploy.files import write_whole
from kimideploy.weights.events import Damaged, Event, Moved, Resolved, Tell
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import MANIFEST, OWN, Item, Manifest, encode, read_manifest
from kimideploy.weights.seen import Record
from kimideploy.weights.store import Staging, link_in


def whole(staging: Staging, manifest: Manifest, tell: Tell) -> bool:
    """Tell what is going to be there, and return whether it is already, proved.

    Raises WeightsError for contents that a commit never had.
    """
    tell(
        Resolved(
            repo=manifest.repo,
            revision=manifest.revision,
            files=len(manifest.items),
            bytes=manifest.size,
            folder=str(staging.final),
        )
    )
    _agreed(staging.final, manifest)
    return _stands(staging.final, manifest, tell)


def _agreed(final: Path, manifest: Manifest) -> None:
    """Raise WeightsError where *final* was pulled with other contents than *manifest* names.

    A commit never changes: whoever says so lies, or has been lied to.
    """
    there = read_manifest(final) if final.is_dir() else None
    if there is None:
        return
    before, now = there.proofs, manifest.proofs
    other = sorted(path for path in before.keys() & now.keys() if before[path] != now[path])
    if other:
        raise WeightsError(
            f"{other[0]} of {manifest.repo} at {manifest.revision[:12]} was another file when it"
            " was pulled, and a commit does not change",
            hint=f"do not trust where this comes from; if it is {final} that is wrong, remove it",
        )


def _stands(final: Path, manifest: Manifest, tell: Tell) -> bool:
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
    found, doubtful = [], []
    for item in manifest.items:
        linked = link_in(final, item.path)
        if linked is not None:
            # Why: who can point it elsewhere can have an engine read anything.
            found.append(item)
            tell(Damaged(path=item.path, why=f"{linked} is a link", mended=True))
        elif not record.holds(item):
            doubtful.append(item)
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


def mended(staging: Staging, items: Iterable[Item]) -> Callable[[str], Path]:
    """Return where each file lies once *items* have come: these in *staging*, others published."""
    coming = {item.path for item in items}
    return lambda path: (staging.files if path in coming else staging.final) / path


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
        linked = link_in(final, item.path)
        if linked is not None:
            linked.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging.files / item.path).replace(target)
        record.add(item, target.stat())
