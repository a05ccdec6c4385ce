"""Files that are whole or absent, and on the disk before anything counts on them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kimideploy.files import sync, write_whole


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Have *data* at *path* with *mode*, durably, in one step: readers see the old or the new."""
    write_whole(path, data, mode=mode)
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
