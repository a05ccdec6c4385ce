"""Pull a checkpoint: the planned files of one commit, every byte proved, whole or not at all.

Whatever ends a pull, the next one goes on from there: what is proved stays proved, what is in
flight is taken up at its last good block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kimideploy.weights import code, space
from kimideploy.weights.bring import Bring
from kimideploy.weights.events import Published, Tell, Told
from kimideploy.weights.forecast import together
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.mend import mended, whole, wrong
from kimideploy.weights.resolve import Line, Ways, planned
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Staging, claimed, every, home
from kimideploy.weights.structure import faults


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
    fetched, place = 0, home(top, manifest.repo, None)
    # Why without the lock: what is whole needs nothing, and may be someone else's to write.
    if whole(staging, manifest, tell):
        if not line.ways.accept_code:
            code.same(final.joinpath, manifest, place, wanted.code)
        staging.sweep()
    else:
        space.writable(final.parent)
        with claimed(staging):
            kept = [one for one in every(top) if one.folder != final]
            bring = Bring(manifest, staging, line, kept)
            there = final.is_dir()
            damaged = wrong(final, manifest, tell) if there else manifest.items
            gate = partial(
                code.gate,
                mended(staging, damaged),
                manifest,
                place,
                pinned=wanted.code,
                accept=line.ways.accept_code,
            )
            if there:
                bring.mend(damaged, gate)
            else:
                bring.all(wanted, gate)
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
        bring = Bring(manifest, staging, line, ())
        bring.mend(damaged, lambda: None)
    return bring.fetched
