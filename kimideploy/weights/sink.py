"""Writing what is large: the disk begins at once, so that making it durable does not last."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, final

from kimideploy.weights.space import disk

#: bytes after which the disk is told to begin: a machine with terabytes of memory would otherwise
#: keep a whole shard there, and sync it for minutes in which nothing seems to happen
GROUP = 16 << 20
#: sync_file_range(2): start writing, do not wait
_BEGIN = 2


@final
class Sink:
    """A file that is written from its start; on leaving it without an error it is durable."""

    def __init__(self, path: Path) -> None:
        """Begin *path* anew; raises KimiError for what the disk refuses, here and later."""
        self._path = path
        self._at = self._begun = 0
        with disk(path):
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
        self._stat: os.stat_result | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Add *data*."""
        view = memoryview(data)
        with disk(self._path):
            while view:
                count = os.write(self._descriptor, view)
                view, self._at = view[count:], self._at + count
        if self._at - self._begun >= GROUP:
            push(self._descriptor, self._begun, self._at - self._begun)
            self._begun = self._at

    @property
    def stat(self) -> os.stat_result:
        """What the file was when it was durable."""
        if self._stat is None:
            raise AssertionError
        return self._stat

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with disk(self._path):
                    os.fsync(self._descriptor)
                    self._stat = os.fstat(self._descriptor)
        finally:
            os.close(self._descriptor)


def push(descriptor: int, start: int, size: int) -> None:
    """Have the disk begin with *size* bytes from *start*, where the system can; no promise."""
    begin = _begin()
    if begin is not None:
        begin(descriptor, start, size, _BEGIN)


@cache
def _begin() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
