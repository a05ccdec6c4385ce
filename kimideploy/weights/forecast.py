"""What a pull would do: where each file stands, and the room that the rest takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kimideploy.weights import space
from kimideploy.weights.adopt import donors
from kimideploy.weights.events import Tell
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.part import BLOCK
from kimideploy.weights.resolve import Line, Ways, planned
from kimideploy.weights.seen import Record
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Staging, every, existing, home
from kimideploy.weights.types import Forecast, Foreseen, Whereabouts


@space.disk()
def foresee(wanted: Wanted, top: Path, ways: Ways, tell: Tell = lambda _: None) -> Forecast:
    """Return what a pull of *wanted* would do now; nothing is written."""
    folder = home(top, wanted.repo, wanted.quant)
    manifest = planned(wanted, folder, Line(ways, tell))
    staging = Staging.of(manifest, top)
    states = standing(manifest, staging, top, ways)
    coming = _coming(states)
    # Why less: what was begun has had its room since then, all of it.
    need = max(sum(coming.values()) - space.taken(map(staging.part, coming)), 0)
    room = space.look(existing(folder))
    return Forecast(
        repo=manifest.repo,
        revision=manifest.revision,
        folder=str(staging.final),
        files=states,
        bytes=manifest.size,
        fetch=sum(one.left for one in states),
        free=room.free,
        short=space.short(need, room),
        code=tuple(item.path for item in manifest.code),
    )


def standing(manifest: Manifest, staging: Staging, top: Path, ways: Ways) -> tuple[Foreseen, ...]:
    """Return where each file of *manifest* is now, in its order."""
    final, begun = Record(staging.final), Record(staging.files)
    here = {i.path for i in manifest.items if final.holds(i) or begun.holds(i)}
    away = [item for item in manifest.items if item.path not in here]
    disk = existing(staging.final.parent)
    given = donors(away, manifest, folders=ways.adopt, kept=every(top), disk=disk)
    ours = {donor.item.path for donor in given}
    found = []
    for item in manifest.items:
        have = _begun(staging, item)
        state: Whereabouts
        if item.path in here:
            state, left = "here", 0
        elif item.path in ours:
            state, left = "to take over", 0
        elif have:
            state, left = "begun", item.size - have
        else:
            state, left = "to fetch", item.size
        found.append(Foreseen(item.path, item.size, item.digest, state, left))
    return tuple(found)


def together(manifests: Sequence[Manifest], top: Path, ways: Ways) -> None:
    """Raise WeightsError unless what is still to come of all *manifests* fits below *top*."""
    items: list[Item] = []
    there = 0
    for manifest in manifests:
        staging = Staging.of(manifest, top)
        coming = _coming(standing(manifest, staging, top, ways))
        items += [item for item in manifest.items if item.path in coming]
        there += space.taken(map(staging.part, coming))
    space.check(items, there, space.look(existing(top)), top)


def brought(manifest: Manifest, staging: Staging) -> int:
    """Return what a pull that has not ended has brought, in bytes: proved, or in ledgers."""
    begun = Record(staging.files)
    return sum(item.size if begun.holds(item) else _begun(staging, item) for item in manifest.items)


def _coming(states: Sequence[Foreseen]) -> dict[str, int]:
    """Return path → size of what comes over the wire, and so needs room."""
    return {one.path: one.size for one in states if one.state in ("begun", "to fetch")}


def _begun(staging: Staging, item: Item) -> int:
    """Return the bytes that the ledger of *item* claims, not proved here."""
    place = staging.place(item.path)
    try:
        lines = place.with_name(f"{place.name}.ledger").read_bytes().count(b"\n") - 1
    except OSError:
        return 0
    return min(max(lines, 0) * BLOCK, item.size)
