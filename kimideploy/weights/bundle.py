"""Weights for a machine without a network: a tar in volumes, with checksums, and back.

The tar is a function of the manifest: where each byte lies in which volume is arithmetic, so a
bundle is resumed by volumes, unpacked by files, and nothing in it is believed. `cat NAME.tar.* |
tar x` unpacks it, too, and `sha256sum -c NAME.sha256` checks it.
"""

from __future__ import annotations

import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from kimideploy.errors import RequestError, WeightsError
from kimideploy.weights import code, space
from kimideploy.weights.events import Arrived, Event, Moved, Resolved, Told
from kimideploy.weights.fetch import Pace
from kimideploy.weights.manifest import MANIFEST, OWN, Item, Manifest, decode, encode
from kimideploy.weights.retry import Stopped
from kimideploy.weights.seen import Record
from kimideploy.weights.store import Staging, claimed, home, write_whole

Tell = Callable[[Event], None]
_BLOCK = 512
_READ = 1 << 20
_TICK = 0.25
_AT_ONCE = 4
_MOST_MANIFEST = 64 << 20
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,200})")
_VOLUME = re.compile(r"(.+)\.tar\.(\d{3,5})")
#: bytes of the smallest volume: below it there would be more volumes than numbers
LEAST = 1 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some bytes of the tar: known ones, or those of a file."""

    start: int
    size: int
    data: bytes | None = None
    file: Path | None = None

    @property
    def end(self) -> int:
        return self.start + self.size


def name_of(manifest: Manifest) -> str:
    """Return what the files of a bundle are called."""
    quant = f"-{manifest.quant}" if manifest.quant is not None else ""
    return f"{manifest.repo.partition('/')[2]}{quant}-{manifest.revision[:12]}"


def bundle(folder: Path, manifest: Manifest, to: Path, *, split: int, tell: Tell) -> list[Path]:
    """Write the proved *folder* as volumes of *split* bytes below *to*; returns them.

    Volumes that an earlier run finished are kept. Raises WeightsError for want of room.
    """
    if split < LEAST:
        raise RequestError(f"--split is at least {LEAST:,} bytes")
    pieces = _pieces(manifest, folder)
    total = pieces[-1].end
    count = -(-total // split)
    name = name_of(manifest)
    space.writable(to)
    sums = _sums(to / f"{name}.sha256")
    volumes = [to / f"{name}.tar.{number:03d}" for number in range(count)]
    sizes = [min(split, total - number * split) for number in range(count)]
    todo = [
        number
        for number, path in enumerate(volumes)
        if path.name not in sums or not path.is_file() or path.stat().st_size != sizes[number]
    ]
    items = [Item(volumes[n].name, sizes[n], sha256="0" * 64) for n in todo]
    space.check(items, 0, space.look(to), to)
    lock, run = threading.Lock(), _Run()

    def write(number: int) -> Event:
        path = volumes[number]
        part = path.with_name(f"{path.name}.part")
        digest = sha256()
        with part.open("wb") as file:
            span = number * split, number * split + sizes[number]
            for data in _between(pieces, *span):
                file.write(data)
                digest.update(data)
                run.count(path.name, len(data))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        with lock:
            sums[path.name] = digest.hexdigest()
            _write_sums(to / f"{name}.sha256", sums)
        return Arrived(path=path.name, bytes=sizes[number])

    _in_parallel(
        [partial(write, number) for number in todo],
        lambda: Moved(
            stage="writing",
            done=run.bytes,
            total=sum(sizes[number] for number in todo),
            files_done=run.files,
            files=len(todo),
        ),
        run,
        tell,
    )
    return volumes


def add(sums_of: Manifest, to: Path, files: Sequence[Path]) -> None:
    """Add *files* below *to* to the checksums of a bundle there."""
    path = to / f"{name_of(sums_of)}.sha256"
    sums = _sums(path)
    for file in files:
        digest = sha256(file.read_bytes()).hexdigest()
        sums[file.relative_to(to).as_posix()] = digest
    _write_sums(path, sums)


def unbundle(where: Path, top: Path, *, accept_code: bool, tell: Tell) -> tuple[Path, Manifest]:
    """Unpack the bundle at *where* into the store *top*; returns its folder and manifest.

    Every file is proved by the manifest's hash; a damaged one is told with its volume. What was
    unpacked before stays. Raises WeightsError.
    """
    volumes, sums = _volumes(where)
    reader = _Reader(volumes)
    manifest = _manifest(reader)
    pieces = _pieces(manifest, None)
    if reader.size != pieces[-1].end:
        raise WeightsError(
            f"the bundle has {reader.size:,} bytes, its manifest comes to {pieces[-1].end:,}",
            hint="a volume is missing or cut short: copy the bundle again",
        )
    folder = home(top, manifest.repo, manifest.quant)
    final = folder / manifest.revision
    space.writable(folder)
    tell(
        Resolved(
            repo=manifest.repo,
            revision=manifest.revision,
            files=len(manifest.items),
            bytes=manifest.size,
            folder=str(final),
        )
    )
    if final.is_dir():
        tell(Told(text=f"{final} is there already; `kimideploy weights verify` proves it"))
        return final, manifest
    staging = Staging(final)
    with claimed(staging):
        staging.begin(manifest)
        record = Record(staging.files)
        todo = [item for item in manifest.items if not record.holds(item)]
        space.check(todo, 0, space.look(staging.folder), top)
        at = {p.file.as_posix(): p for p in pieces if p.file is not None}
        run = _Run()

        def take(item: Item) -> Event:
            piece = at.get(item.path) or _Piece(0, 0)
            found = _unpack(item, reader.chunks(piece.start, item.size), staging, run)
            if found is None:
                raise WeightsError(
                    f"{item.path} is not what the manifest says: {_culprit(piece, volumes, sums)}",
                    hint="copy that volume again; what was unpacked stays",
                )
            record.add(item, found)
            return Arrived(path=item.path, bytes=item.size)

        _in_parallel(
            [partial(take, item) for item in todo],
            lambda: Moved(
                stage="writing",
                done=run.bytes,
                total=sum(item.size for item in todo),
                files_done=run.files,
                files=len(todo),
            ),
            run,
            tell,
        )
        note = code.gate(staging.files, manifest, folder, pinned=None, accept=accept_code)
        if note is not None:
            tell(Told(text=note))
        staging.publish()
    return final, manifest


def _pieces(manifest: Manifest, folder: Path | None) -> list[_Piece]:
    """Return the tar of *manifest* in order; without a folder files stand by their names."""
    text = encode(manifest)
    place = home(Path(), manifest.repo, manifest.quant) / manifest.revision
    found: list[_Piece] = []

    def put(size: int, data: bytes | None = None, file: Path | None = None) -> None:
        start = found[-1].end if found else 0
        if size:
            found.append(_Piece(start, size, data, file))

    def member(path: str, size: int) -> bytes:
        info = tarfile.TarInfo((place / path).as_posix())
        info.size, info.mode = size, 0o644
        # Why GNU: it writes sizes beyond 8 GiB in the header itself.
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    for path, size, data in (
        (f"{OWN}/{MANIFEST}", len(text), text),
        *((item.path, item.size, None) for item in manifest.items),
    ):
        head = member(path, size)
        put(len(head), head)
        if data is not None:
            put(size, data)
        else:
            put(size, file=(folder / path) if folder is not None else Path(path))
        pad = -size % _BLOCK
        put(pad, bytes(pad))
    put(2 * _BLOCK, bytes(2 * _BLOCK))
    return found


def _between(pieces: Sequence[_Piece], start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of the tar from *start* up to *end*."""
    for piece in pieces:
        first, last = max(start, piece.start), min(end, piece.end)
        if first >= last:
            continue
        if piece.data is not None:
            yield piece.data[first - piece.start : last - piece.start]
            continue
        if piece.file is None:
            raise AssertionError
        with piece.file.open("rb", buffering=0) as file:
            file.seek(first - piece.start)
            left = last - first
            while left:
                data = file.read(min(left, _READ))
                if not data:
                    raise WeightsError(f"{piece.file} became shorter while it was read")
                left -= len(data)
                yield data


class _Reader:
    """The volumes of a bundle as one row of bytes."""

    def __init__(self, volumes: Sequence[Path]) -> None:
        self._volumes = volumes
        self._starts = [0]
        for path in volumes:
            self._starts.append(self._starts[-1] + path.stat().st_size)
        self.size = self._starts[-1]

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Yield the bytes from *start*; fewer than *size* where the bundle ends."""
        end = start + size
        for path, first, last in zip(self._volumes, self._starts, self._starts[1:], strict=False):
            low, high = max(start, first), min(end, last)
            if low >= high:
                continue
            with path.open("rb", buffering=0) as file:
                file.seek(low - first)
                while low < high and (data := file.read(min(high - low, _READ))):
                    low += len(data)
                    yield data

    def bytes(self, start: int, size: int) -> bytes:
        return b"".join(self.chunks(start, size))


def _manifest(reader: _Reader) -> Manifest:
    """Return the manifest that the tar begins with."""
    try:
        info = tarfile.TarInfo.frombuf(reader.bytes(0, _BLOCK), "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise WeightsError("the bundle does not begin with a manifest") from error
    start = _BLOCK
    if info.type == tarfile.GNUTYPE_LONGNAME:
        # a name too long for the header comes before it, as a member of its own
        start += -(-info.size // _BLOCK) * _BLOCK + _BLOCK
        if info.size > _MOST_MANIFEST:
            raise WeightsError("the bundle does not begin with a manifest")
        info = tarfile.TarInfo.frombuf(
            reader.bytes(start - _BLOCK, _BLOCK), "utf-8", "surrogateescape"
        )
    if not 0 < info.size <= _MOST_MANIFEST:
        raise WeightsError("the bundle does not begin with a manifest")
    manifest = decode(reader.bytes(start, info.size), name="the bundle's first file")
    first = _pieces(manifest, None)[0]
    if reader.bytes(0, first.size) != first.data:
        raise WeightsError("the bundle is not one that kimideploy wrote")
    return manifest


def _volumes(where: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the volumes of the one bundle at *where*, in order, and their checksums."""
    folder = where if where.is_dir() else where.parent
    if not where.exists():
        raise RequestError(f"{where} is not there")
    lists = sorted(folder.glob("*.sha256")) if where.is_dir() else [where]
    if not where.is_dir() and where.suffix != ".sha256":
        found = _VOLUME.fullmatch(where.name)
        lists = [folder / f"{found[1]}.sha256"] if found is not None else []
    if len(lists) != 1 or not lists[0].is_file():
        raise RequestError(
            f"{where} holds {len(lists)} bundles", hint="name the .sha256 file of one"
        )
    sums = _sums(lists[0])
    numbers = sorted(
        (int(found[2]), name)
        for name in sums
        if (found := _VOLUME.fullmatch(name)) is not None and "/" not in name
    )
    if not numbers or [number for number, _ in numbers] != list(range(len(numbers))):
        raise WeightsError(f"{lists[0]} does not name every volume")
    volumes = [folder / name for _, name in numbers]
    missing = [path.name for path in volumes if not path.is_file()]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, and {len(missing) - 1} more volumes")
    return volumes, sums


def _unpack(
    item: Item, chunks: Iterator[bytes], staging: Staging, run: _Run
) -> os.stat_result | None:
    """Write *item* out of the bundle; None where its bytes are not the manifest's."""
    part = staging.place(item).with_name(f"{staging.place(item).name}.part")
    hasher = item.hasher()
    with part.open("wb") as file:
        for data in chunks:
            file.write(data)
            hasher.update(data)
            run.count(item.path, len(data))
        file.flush()
        os.fsync(file.fileno())
        found = os.fstat(file.fileno())
    if hasher.hexdigest() != item.digest:
        part.unlink()
        return None
    target = staging.files / item.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    return found


def _culprit(piece: _Piece, volumes: Sequence[Path], sums: dict[str, str]) -> str:
    """Return which of the volumes under *piece* is damaged, in words."""
    at = 0
    for path in volumes:
        size = path.stat().st_size
        if at < piece.end and piece.start < at + size:
            digest = sha256()
            with path.open("rb", buffering=0) as file:
                while data := file.read(_READ):
                    digest.update(data)
            if digest.hexdigest() != sums[path.name]:
                return f"{path.name} is damaged"
        at += size
    return "every volume is as its checksum says, so it was bundled so"


def _sums(path: Path) -> dict[str, str]:
    """Return name → sha256 as `sha256sum` writes them; nothing where there is no such file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} can't be read") from error
    found = [_SUM.fullmatch(line) for line in lines]
    return {line[2]: line[1] for line in found if line is not None and ".." not in line[2]}


def _write_sums(path: Path, sums: dict[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_whole(path, text.encode())


class _Run:
    """How far some tasks are, and whether they shall end."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self.files, self.stop = 0, threading.Event()

    @property
    def bytes(self) -> int:
        return sum(list(self._done.values()))

    def count(self, name: str, size: int) -> None:
        """Count *size* more bytes of *name*; raises Stopped when all shall end."""
        self._done[name] = self._done.get(name, 0) + size
        if self.stop.is_set():
            raise Stopped


def _in_parallel(
    tasks: Sequence[Callable[[], Event]], look: Callable[[], Moved], run: _Run, tell: Tell
) -> None:
    """Run *tasks* a few at a time; tell what each returns, and how far they are."""
    pace = Pace(look)
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        pending = {pool.submit(task) for task in tasks}
        try:
            while pending:
                ready, pending = wait(pending, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in ready:
                    tell(future.result())
                    run.files += 1
                tell(pace.now())
        finally:
            # Why both: what has not begun is called off, what runs is told to end.
            run.stop.set()
            for future in pending:
                future.cancel()
