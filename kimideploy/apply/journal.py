"""The journal of a host: one JSON line for each thing that was done, when, by whom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import msgspec

from kimideploy.apply.answers import Entry
from kimideploy.apply.home import Home


class Journal:
    """Appends lines that are on the disk when `add` returns; a line cut off by a crash is ended."""

    def __init__(self, home: Home) -> None:
        self._path = home.journal

    def add(self, entry: Entry) -> None:
        """Have *entry* at the end of the journal, durably."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (b"\n" if torn else b"") + msgspec.json.encode(entry) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self) -> Iterator[Entry]:
        """Yield every whole line in its order; what a crash cut off is left out."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError:
                continue


def now() -> float:
    """Return the time as the journal writes it."""
    return round(time.time(), 3)
