"""The tar of a bundle: where each byte of a manifest's files lies in it is arithmetic.

So a bundle is resumed by volumes, unpacked by files, and nothing that it says is believed.
`cat NAME.tar.* | tar x` unpacks it, too, and `sha256sum -c NAME.sha256` checks it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import WeightsError
from kimideploy.files import write_whole
from kimideploy.weights.manifest import MANIFEST, OWN, Manifest, encode
from kimideploy.weights.store import home

BLOCK = 512
_READ = 1 << 20
#: name and number of a volume
VOLUME = re.compile(r"(.+)\.tar\.(\d{3,5})")
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,200})")


@dataclass(frozen=True, slots=True)
class Piece:
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


def pieces_of(manifest: Manifest, folder: Path | None) -> list[Piece]:
    """Return the tar of *manifest* in order; without a folder files stand by their names."""
    text = encode(manifest)
    place = home(Path(), manifest.repo, manifest.quant) / manifest.revision
    found: list[Piece] = []

    def put(size: int, data: bytes | None = None, file: Path | None = None) -> None:
        start = found[-1].end if found else 0
        if size:
            found.append(Piece(start, size, data, file))

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
        pad = -size % BLOCK
        put(pad, bytes(pad))
    put(2 * BLOCK, bytes(2 * BLOCK))
    return found


def between(pieces: Sequence[Piece], start: int, end: int) -> Iterator[bytes]:
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


class Reader:
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


def read_sums(path: Path) -> dict[str, str]:
    """Return name → sha256 as `sha256sum` writes them; nothing where there is no such file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} can't be read") from error
    found = [_SUM.fullmatch(line) for line in lines]
    return {line[2]: line[1] for line in found if line is not None and ".." not in line[2]}


def write_sums(path: Path, sums: dict[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_whole(path, text.encode())
