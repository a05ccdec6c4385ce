"""Files that are whole or absent, and on the disk before anything counts on them."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Have *data* at *path* with *mode*, durably, in one step: readers see the old or the new.

    The mode is set before the first byte is there, so that no other user ever reads a secret.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        os.fchmod(handle, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def link(path: Path, target: str) -> None:
    """Have the symbolic link *path* lead to *target*, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove(path: Path) -> None:
    """Have no file at *path*."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def text(path: Path) -> str | None:
    """Return what *path* holds, None if it is not there or no text."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return None


def sync(folder: Path) -> None:
    """Have the names in *folder* on the disk."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
