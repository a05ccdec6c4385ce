"""Files that are whole or as they were before, and names that are on the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write *path* so that it holds either what it held or all of *data*.

    *mode* is set before the first byte is there, so that no other user ever reads a secret; None:
    as the umask says. Its name is durable only after a `sync` of the folder.
    """
    beside = path.with_name(f".{path.name}.new")
    # Why anew: what lies there under that name may be a link that someone has put there.
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(beside, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            if mode is not None:
                beside.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """Make the names in *folder* durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
