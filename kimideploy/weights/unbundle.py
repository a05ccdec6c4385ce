"""A bundle unpacked into the store: every file proved by the manifest's hash, no network asked."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kimideploy.errors import RequestError, WeightsError
from kimideploy.weights import code, space
from kimideploy.weights.events import Arrived, Tell, Told
from kimideploy.weights.hashing import sha256_of
from kimideploy.weights.manifest import Item, Manifest, decode
from kimideploy.weights.mend import mended, put, whole, wrong
from kimideploy.weights.parallel import Tally, each
from kimideploy.weights.seen import Record
from kimideploy.weights.sink import Sink
from kimideploy.weights.store import Staging, claimed, home
from kimideploy.weights.tape import BLOCK, VOLUME, Piece, Reader, pieces_of, read_sums

_MOST_MANIFEST = 64 << 20


@space.disk()
def unbundle(where: Path, top: Path, *, accept_code: bool, tell: Tell) -> tuple[Path, Manifest]:
    """Unpack the bundle at *where* into the store *top*; returns its folder and manifest.

    Every file is proved by the manifest's hash; a damaged one is told with its volume. What was
    unpacked before stays; of a folder that is there already, only what is wrong in it is unpacked.
    Raises WeightsError.
    """
    volumes, sums = _volumes(where)
    reader = Reader(volumes)
    manifest = _manifest(reader)
    pieces = pieces_of(manifest, None)
    if reader.size != pieces[-1].end:
        raise WeightsError(
            f"the bundle has {reader.size:,} bytes, its manifest comes to {pieces[-1].end:,}",
            hint="a volume is missing or cut short: copy the bundle again",
        )
    staging = Staging.of(manifest, top)
    final = staging.final
    _beside(where if where.is_dir() else where.parent, sums)
    if whole(staging, manifest, tell):
        tell(Told(text=f"{final} is there already, and proved"))
        return final, manifest
    space.writable(final.parent)
    with claimed(staging):
        there = final.is_dir()
        items = wrong(final, manifest, tell) if there else list(manifest.items)
        staging.begin(manifest)
        record = Record(staging.files)
        todo = [item for item in items if not record.holds(item)]
        space.check(todo, 0, space.look(staging.folder), top)
        at = {p.file.as_posix(): p for p in pieces if p.file is not None}
        tally = Tally("writing", {item.path: item.size for item in todo})

        def take(item: Item) -> Arrived:
            piece = at.get(item.path) or Piece(0, 0)
            found = _unpack(item, reader.chunks(piece.start, item.size), staging, tally)
            if found is None:
                raise WeightsError(
                    f"{item.path} is not what the manifest says: {_culprit(piece, volumes, sums)}",
                    hint="copy that volume again; what was unpacked stays",
                )
            record.add(item, found)
            return Arrived(path=item.path, bytes=item.size)

        for event in each({item.path: partial(take, item) for item in todo}, tally):
            tell(event)
        place, lies = home(top, manifest.repo, None), mended(staging, items)
        note = code.gate(lies, manifest, place, pinned=None, accept=accept_code)
        if note is not None:
            tell(Told(text=note))
        if there:
            put(staging, items, manifest)
            staging.remove()
            return final, manifest
        staging.publish()
    return final, manifest


def _manifest(reader: Reader) -> Manifest:
    """Return the manifest that the tar begins with."""
    start, info = BLOCK, _header(reader, 0)
    if info.type == tarfile.GNUTYPE_LONGNAME and 0 < info.size <= _MOST_MANIFEST:
        # a name too long for the header comes before it, as a member of its own
        start += -(-info.size // BLOCK) * BLOCK + BLOCK
        info = _header(reader, start - BLOCK)
    if not 0 < info.size <= _MOST_MANIFEST:
        raise WeightsError("the bundle does not begin with a manifest")
    manifest = decode(reader.bytes(start, info.size), name="the bundle's first file")
    first = pieces_of(manifest, None)[0]
    if reader.bytes(0, first.size) != first.data:
        raise WeightsError("the bundle is not one that kimideploy wrote")
    return manifest


def _header(reader: Reader, start: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(reader.bytes(start, BLOCK), "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise WeightsError("the bundle does not begin with a manifest") from error


def _volumes(where: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the volumes of the one bundle at *where*, in order, and their checksums."""
    folder = where if where.is_dir() else where.parent
    if not where.exists():
        raise RequestError(f"{where} is not there")
    lists = sorted(folder.glob("*.sha256")) if where.is_dir() else [where]
    if not where.is_dir() and where.suffix != ".sha256":
        found = VOLUME.fullmatch(where.name)
        lists = [folder / f"{found[1]}.sha256"] if found is not None else []
    if len(lists) != 1 or not lists[0].is_file():
        raise RequestError(
            f"{where} holds {len(lists)} bundles", hint="name the .sha256 file of one"
        )
    sums = read_sums(lists[0])
    numbers = sorted(
        (int(found[2]), name)
        for name in sums
        if (found := VOLUME.fullmatch(name)) is not None and "/" not in name
    )
    if not numbers or [number for number, _ in numbers] != list(range(len(numbers))):
        raise WeightsError(f"{lists[0]} does not name every volume")
    volumes = [folder / name for _, name in numbers]
    missing = [path.name for path in volumes if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, and {len(missing) - 1} more volumes")
    return volumes, sums


def _beside(folder: Path, sums: dict[str, str]) -> None:
    """Raise WeightsError for a file beside the volumes, a wheel say, that is not what is listed."""
    for name, digest in sums.items():
        path = folder / name
        if VOLUME.fullmatch(name) is None and path.is_file() and sha256_of(path) != digest:
            raise WeightsError(
                f"{path} is not what its checksum says", hint="copy it again, or remove it"
            )


def _unpack(
    item: Item, chunks: Iterator[bytes], staging: Staging, tally: Tally
) -> os.stat_result | None:
    """Write *item* out of the bundle; None where its bytes are not the manifest's."""
    part = staging.part(item.path)
    hasher = item.hasher()
    with Sink(part) as file:
        for data in chunks:
            file.write(data)
            hasher.update(data)
            tally.count(item.path, len(data))
    if hasher.hexdigest() != item.digest:
        part.unlink()
        return None
    target = staging.files / item.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    return file.stat


def _culprit(piece: Piece, volumes: Sequence[Path], sums: dict[str, str]) -> str:
    """Return which of the volumes under *piece* is damaged, in words."""
    at = 0
    for path in volumes:
        size = path.stat().st_size
        under = at < piece.end and piece.start < at + size
        if under and sha256_of(path) != sums[path.name]:
            return f"{path.name} is damaged"
        at += size
    return "every volume is as its checksum says, so it was bundled so"
