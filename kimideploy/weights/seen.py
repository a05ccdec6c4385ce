"""Which files were proved, and what they were then; what has not changed is not read again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from kimideploy.facts.types import Strict
from kimideploy.files import write_whole
from kimideploy.weights.manifest import OWN, Item

FILE = "seen.json"
_MOST = 64 << 20


class Seen(Strict, frozen=True):
    """A file as it was when its bytes hashed to `digest`."""

    digest: str
    size: int
    mtime: int
    inode: int


class Record:
    """The proved files of one folder; written after each, so that a killed run keeps them."""

    def __init__(self, folder: Path) -> None:
        """Read what *folder* remembers; a record that can't be read remembers nothing."""
        self._path = folder / OWN / FILE
        self._folder = folder
        self._lock = threading.Lock()
        try:
            with self._path.open("rb") as file:
                self._seen = msgspec.json.decode(file.read(_MOST), type=dict[str, Seen])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._seen = {}

    def holds(self, item: Item) -> bool:
        """Return whether the file of *item* is as it was when it was proved."""
        seen = self._seen.get(item.path)
        if seen is None or seen.digest != item.digest:
            return False
        try:
            found = (self._folder / item.path).lstat()
        except OSError:
            return False
        return _seen(item, found) == seen and seen.size == item.size

    def add(self, item: Item, found: os.stat_result) -> None:
        """Remember *item*, which was proved when the file was *found*."""
        with self._lock:
            self._seen[item.path] = _seen(item, found)
            self._write()

    def drop(self, item: Item) -> None:
        """Forget *item*."""
        with self._lock:
            if self._seen.pop(item.path, None) is not None:
                self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, msgspec.json.encode(self._seen))


def _seen(item: Item, found: os.stat_result) -> Seen:
    return Seen(item.digest, found.st_size, found.st_mtime_ns, found.st_ino)
