"""Weights for a machine without a network: a tar in volumes, with checksums."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

from kimideploy.errors import RequestError
from kimideploy.files import sync, write_whole
from kimideploy.weights import space
from kimideploy.weights.events import Arrived, Tell
from kimideploy.weights.hashing import sha256_of
from kimideploy.weights.manifest import Item, Manifest, encode
from kimideploy.weights.parallel import Tally, each
from kimideploy.weights.sink import Sink
from kimideploy.weights.store import alone
from kimideploy.weights.tape import VOLUME, between, name_of, pieces_of, read_sums, write_sums

#: bytes of the smallest volume: below it there would be more volumes than numbers
LEAST = 1 << 20


def check(folder: Path, to: Path, *, split: int) -> None:
    """Raise RequestError or MachineError for what no bundle of *folder* can be written to."""
    if split < LEAST:
        raise RequestError(f"--split is at least {LEAST:,} bytes")
    if to.resolve().is_relative_to(folder.resolve()):
        raise RequestError(f"{to} is the folder that is bundled", hint="-o names another")
    space.writable(to, flag="-o")


@space.disk()
def bundle(folder: Path, manifest: Manifest, to: Path, *, split: int, tell: Tell) -> list[Path]:
    """Write the proved *folder* as volumes of *split* bytes below *to*; returns them.

    Volumes that an earlier run finished are kept, those of another bundle or division go. Raises
    WeightsError for want of room, MachineError for what can't be written, BusyError while another
    run writes the same.
    """
    check(folder, to, split=split)
    with alone(to / f".{name_of(manifest)}.lock", f"another kimideploy bundles into {to}"):
        return _written(folder, manifest, to, split, tell)


def _written(folder: Path, manifest: Manifest, to: Path, split: int, tell: Tell) -> list[Path]:
    pieces = pieces_of(manifest, folder)
    total = pieces[-1].end
    name = name_of(manifest)
    volumes = [to / f"{name}.tar.{number:03d}" for number in range(-(-total // split))]
    sizes = {path: min(split, total - number * split) for number, path in enumerate(volumes)}
    sums = _begun(manifest, to, sizes)
    todo = [path for path in volumes if path.name not in sums]
    items = [Item(path.name, sizes[path], sha256="0" * 64) for path in todo]
    space.check(items, 0, space.look(to), to, flag="-o")
    lock = threading.Lock()
    tally = Tally("writing", {path.name: sizes[path] for path in todo})

    def write(path: Path) -> Arrived:
        part = path.with_name(f"{path.name}.part")
        digest = sha256()
        start = volumes.index(path) * split
        with Sink(part) as file:
            for data in between(pieces, start, start + sizes[path]):
                file.write(data)
                digest.update(data)
                tally.count(path.name, len(data))
        part.replace(path)
        with lock:
            sums[path.name] = digest.hexdigest()
            write_sums(to / f"{name}.sha256", sums)
        return Arrived(path=path.name, bytes=sizes[path])

    tasks = {path.name: partial(write, path) for path in todo}
    for event in each(tasks, tally):
        tell(event)
    sync(to)
    return volumes


def _begun(manifest: Manifest, to: Path, sizes: Mapping[Path, int]) -> dict[str, str]:
    """Return the checksums of what an earlier run of the same bundle finished; the rest goes.

    The manifest lies beside the volumes, for people to read, and tells whose they are.
    """
    name = name_of(manifest)
    beside, listed = to / f"{name}.json", to / f"{name}.sha256"
    text = encode(manifest)
    sums = read_sums(listed)
    same = beside.is_file() and beside.read_bytes() == text
    kept = {
        path.name
        for path, size in sizes.items()
        if same and path.name in sums and path.is_file() and path.stat().st_size == size
    }
    mine = {n for n in sums if (found := VOLUME.fullmatch(n)) is not None and found[1] == name}
    for stale in (*to.glob(f"{name}.tar.*.part"), *(to / n for n in mine - kept)):
        stale.unlink(missing_ok=True)
    sums = {n: digest for n, digest in sums.items() if n in kept or n not in mine}
    write_whole(beside, text)
    sums[beside.name] = sha256(text).hexdigest()
    write_sums(listed, sums)
    return sums


def add(sums_of: Manifest, to: Path, files: Sequence[Path]) -> None:
    """Add *files* below *to* to the checksums of a bundle there."""
    path = to / f"{name_of(sums_of)}.sha256"
    sums = read_sums(path)
    for file in files:
        sums[file.relative_to(to).as_posix()] = sha256_of(file)
    write_sums(path, sums)
