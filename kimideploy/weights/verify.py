"""Verify a folder of weights: hashes against its manifest, headers against its index."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from kimideploy.weights import space
from kimideploy.weights.events import Damaged, Event, Moved, Told, Verified
from kimideploy.weights.hashing import hashed
from kimideploy.weights.manifest import OWN, Item, Manifest
from kimideploy.weights.seen import Record
from kimideploy.weights.structure import faults


def verify(
    folder: Path, manifest: Manifest, *, full: bool = False, workers: int | None = None
) -> Iterator[Event]:
    """Yield what is found; the last event, Verified, says whether all is as it should be.

    Files that are as they were when they were last proved are not read again, unless *full*.
    """
    began = time.monotonic()
    record = Record(folder)
    doubtful = [item for item in manifest.items if full or not record.holds(item)]
    keep = os.access(folder, os.W_OK)
    ok, read = True, 0
    with space.disk():
        for result in hashed([(item, folder / item.path) for item in doubtful], workers=workers):
            if isinstance(result, Moved):
                yield result
                continue
            read += result.found.st_size if result.found is not None else 0
            if result.why is not None or result.found is None:
                ok = False
                if keep:
                    record.drop(result.item)
                yield Damaged(path=result.item.path, why=result.why or "missing")
            elif keep:
                record.add(result.item, result.found)
    if ok:
        for fault in faults(folder, [item.path for item in manifest.items]):
            ok = False
            yield Damaged(path=str(folder), why=fault)
    for name in _strangers(folder, manifest):
        yield Told(text=f"{name} is none of the checkpoint's files")
    yield Verified(
        repo=manifest.repo,
        revision=manifest.revision,
        folder=str(folder),
        files=len(manifest.items),
        bytes=manifest.size,
        hashed=read,
        seconds=time.monotonic() - began,
        ok=ok,
    )


def damaged(folder: Path, manifest: Manifest) -> list[Item]:
    """Return the items that the last verification could not prove, or that changed since."""
    record = Record(folder)
    return [item for item in manifest.items if not record.holds(item)]


def _strangers(folder: Path, manifest: Manifest) -> list[str]:
    """Return files that an engine would find and no manifest names: code, weights, pickles."""
    names = {item.path for item in manifest.items}
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if inside.parts[0].startswith(".") or inside.parts[0] == OWN or path.is_dir():
            continue
        if inside.as_posix() not in names:
            found.append(inside.as_posix())
    return sorted(found)[:10]
