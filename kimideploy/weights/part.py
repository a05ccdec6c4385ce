"""A file that is being fetched: its bytes in `.part`, and a ledger of the blocks that have come.

The ledger's claims are checked, never believed: each line holds a block's CRC, and whoever goes on
with a part reads the claimed blocks again, which also brings the file's own hash up to date. So no
write needs to be synced before it is claimed, and a power cut costs only the blocks it took.
"""

from __future__ import annotations

import os
import re
import threading
import zlib
from contextlib import suppress
from pathlib import Path

from kimideploy.files import write_whole
from kimideploy.weights.manifest import Item
from kimideploy.weights.sink import GROUP, push
from kimideploy.weights.space import disk

#: bytes of a block: what a killed run may fetch again for each file in flight
BLOCK = 1 << 20
_READ = 1 << 20
_LINE = re.compile(rb"(\d{1,9}) ([0-9a-f]{8})")
_MOST_LEDGER = 64 << 20


class Part:
    """One file in flight. Safe for several threads, each with a span of its own."""

    def __init__(self, item: Item, place: Path) -> None:
        """Name *item*'s files: *place*.part and *place*.ledger."""
        self.item = item
        self.path = place.with_name(f"{place.name}.part")
        self.ledger = place.with_name(f"{place.name}.ledger")
        self.blocks = -(-item.size // BLOCK)
        #: bytes that are here, and those of them that an earlier run left
        self.have = self.kept = 0
        self._done = bytearray(self.blocks)
        self._hash, self._hashed = item.hasher(), 0
        self._catching = False
        self._lock = threading.Lock()
        self._data = self._log = -1

    def open(self) -> None:
        """Open both files and take over what an earlier run left, as far as it proves itself."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        self._data = os.open(self.path, flags, 0o644)
        claims = self._claims()
        kept = self._proved(claims) if claims else {}
        if kept:
            # Why anew: claims that did not hold must not be read again. Why whole: a run that is
            # killed right here must not have forgotten those that did.
            lines = b"".join(b"%d %08x\n" % pair for pair in sorted(kept.items()))
            write_whole(self.ledger, self._head() + lines)
        self._log = os.open(self.ledger, flags | os.O_APPEND | (0 if kept else os.O_TRUNC), 0o644)
        if not kept:
            os.write(self._log, self._head())
        for block in kept:
            self._done[block] = 1
        self._catch_up()

    def close(self) -> None:
        """Close both files; they stay."""
        for descriptor in (self._data, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._log = -1

    def discard(self) -> None:
        """Remove both files: what they hold is of no use."""
        self.close()
        for path in (self.path, self.ledger):
            path.unlink(missing_ok=True)

    def gaps(self) -> list[tuple[int, int]]:
        """Return the spans of bytes that are missing, each from the start of a block."""
        found: list[tuple[int, int]] = []
        for block in range(self.blocks):
            if self._done[block]:
                continue
            start = block * BLOCK
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], start + self._length(block))
            else:
                found.append((start, start + self._length(block)))
        return found

    def write(self, span: Span, data: memoryview) -> None:
        """Take the next bytes of *span*: they are on their way to the disk, hashed and claimed."""
        while data:
            room = span.at // BLOCK * BLOCK + BLOCK - span.at
            piece, data = data[:room], data[room:]
            self._write(piece, span.at)
            with self._lock:
                self.have += len(piece)
                first = not self._catching and self._hashed == span.at
            if first:
                # Why without the lock: only who writes the first missing bytes comes here.
                self._hash.update(piece)
                with self._lock:
                    self._hashed += len(piece)
            span.crc = zlib.crc32(piece, span.crc)
            span.at += len(piece)
            if span.at % BLOCK == 0 or span.at == self.item.size:
                self._claim((span.at - 1) // BLOCK, span.crc)
                span.crc = 0
                self._catch_up()

    @property
    def complete(self) -> bool:
        """Whether every block is here and hashed."""
        return self._hashed == self.item.size and all(self._done)

    def matches(self) -> bool:
        """Return whether the bytes are those that the hub names; only for a complete part."""
        return self._hash.hexdigest() == self.item.digest

    def publish(self, path: Path) -> os.stat_result:
        """Make the proved bytes durable and give them their name; returns what the file is then."""
        os.ftruncate(self._data, self.item.size)
        os.fsync(self._data)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(path)
        found = os.fstat(self._data)
        self.close()
        self.ledger.unlink(missing_ok=True)
        return found

    def _length(self, block: int) -> int:
        return min(BLOCK, self.item.size - block * BLOCK)

    def _head(self) -> bytes:
        return f"{self.item.algorithm} {self.item.digest} {self.item.size} {BLOCK}\n".encode()

    def _claims(self) -> dict[int, int]:
        """Return block → CRC as the ledger of this very content claims it."""
        try:
            with self.ledger.open("rb") as file:
                head, *lines = file.read(_MOST_LEDGER).split(b"\n")
        except OSError:
            return {}
        if head + b"\n" != self._head():
            return {}
        # Why not the last: a line without its end was being written when the run was killed.
        found = (_LINE.fullmatch(line) for line in lines[:-1])
        claims = {int(line[1]): int(line[2], 16) for line in found if line is not None}
        return {block: crc for block, crc in claims.items() if block < self.blocks}

    def _proved(self, claims: dict[int, int]) -> dict[int, int]:
        """Return the claims that the bytes on the disk bear out; hashes the first of them."""
        kept: dict[int, int] = {}
        buffer = memoryview(bytearray(min(BLOCK, self.item.size)))
        for block in sorted(claims):
            view = buffer[: self._length(block)]
            if self._read(view, block * BLOCK) != len(view) or zlib.crc32(view) != claims[block]:
                continue
            kept[block] = claims[block]
            self.have = self.kept = self.kept + len(view)
            if self._hashed == block * BLOCK:
                self._hash.update(view)
                self._hashed += len(view)
        return kept

    def _claim(self, block: int, crc: int) -> None:
        os.write(self._log, b"%d %08x\n" % (block, crc))
        with self._lock:
            self._done[block] = 1
        group = (block + 1) * BLOCK
        if group % GROUP == 0:
            push(self._data, group - GROUP, GROUP)

    def _catch_up(self) -> None:
        """Hash the blocks that came before those ahead of them, from the page cache."""
        with self._lock:
            if self._catching or not self._next():
                return
            self._catching = True
        buffer = memoryview(bytearray(_READ))
        while True:
            end = min(self._hashed + _READ, self._end())
            view = buffer[: end - self._hashed]
            if self._read(view, self._hashed) != len(view):
                raise OSError(5, "a block that was written is gone", str(self.path))
            self._hash.update(view)
            with self._lock:
                self._hashed = end
                if not self._next():
                    self._catching = False
                    return

    def _next(self) -> bool:
        """Whether the block where hashing stands is here whole."""
        return self._hashed < self.item.size and bool(self._done[self._hashed // BLOCK])

    def _end(self) -> int:
        block = self._hashed // BLOCK
        return block * BLOCK + self._length(block)

    def _write(self, data: memoryview, offset: int) -> None:
        with disk(self.path):
            while data:
                written = os.pwrite(self._data, data, offset)
                data, offset = data[written:], offset + written

    def _read(self, view: memoryview, offset: int) -> int:
        done = 0
        with suppress(OSError):
            while done < len(view):
                got = os.preadv(self._data, [view[done:]], offset + done)
                if not got:
                    break
                done += got
        return done


class Span:
    """The bytes of a part that one worker fetches, and how far it is; `end` may come nearer."""

    __slots__ = ("at", "crc", "end", "part", "start")

    def __init__(self, part: Part, start: int, end: int) -> None:
        self.part, self.start, self.end = part, start, end
        self.at, self.crc = start, 0
