"""How long an engine will read weights from a disk: its kind, and its rate, measured."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kimideploy.weights.types import Kind, Load

#: statements of mount(8) and of the file systems' own documentation
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"}
    | {"ocfs2", "orangefs", "smb3", "smbfs", "virtiofs", "wekafs"}
)
_MEMORY = frozenset({"ramfs", "tmpfs", "zram"})
#: bytes and seconds of a measurement, and readers at once: engines read with several, too
_MOST, _SECONDS, _AT_ONCE = 8 << 30, 3.0, 4
_READ = 4 << 20
#: a load longer than this is worth a word, in seconds: vLLM's own deadline is 600
_LONG = 600.0
_ESCAPE = re.compile(r"\\([0-7]{3})")


def filesystem(path: Path) -> str | None:
    """Return the type of the file system that *path* lies on, None where it can't be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        real = os.path.realpath(path)
    except OSError:
        return None
    best: tuple[int, str | None] = (-1, None)
    for line in lines:
        left, dash, right = line.partition(" - ")
        fields = left.split()
        if not dash or len(fields) < 5 or not right:  # noqa: PLR2004
            continue
        mount = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        # Why at least: of two mounts on one folder the later one is seen.
        if inside and len(mount) >= best[0]:
            best = (len(mount), right.split()[0])
    return best[1]


def kind_of(name: str | None) -> Kind:
    """Return what a file system is for someone who reads 595 GB from it."""
    word = (name or "").removeprefix("fuse.")
    if word in _NETWORK or (name or "").startswith("fuse."):
        return "network"
    if word in _MEMORY:
        return "memory"
    return "overlay" if word in ("overlay", "aufs") else "local"


def look(folder: Path, sizes: Sequence[tuple[str, int]], *, measure: bool) -> Load:
    """Return what reading the files of *folder* will be like; *measure* reads for some seconds."""
    name = filesystem(folder)
    kind = kind_of(name)
    total = sum(size for _, size in sizes)
    rate = _rate(folder, sizes) if measure else None
    seconds = total / rate if rate else None
    return Load(name, kind, rate, seconds, tuple(_notes(kind, name, seconds)))


def _notes(kind: Kind, name: str | None, seconds: float | None) -> list[str]:
    notes = []
    if kind == "network":
        notes.append(
            f"{name} is a network file system: engines that map files read it page by page;"
            " --safetensors-load-strategy prefetch makes vLLM read ahead"
        )
    if kind == "overlay":
        notes.append("an overlay is a container's own layer: put weights on a volume")
    if kind == "memory":
        notes.append(f"{name} takes the memory that the engine loads into")
    if seconds is not None and seconds > _LONG:
        notes.append(
            f"reading takes {seconds / 60:.0f} min: vLLM's own deadline is 10, and is raised by"
            " VLLM_ENGINE_READY_TIMEOUT_S"
        )
    return notes


def _rate(folder: Path, sizes: Sequence[tuple[str, int]]) -> float | None:
    """Bytes per second of several readers in sequence; None where there is nothing to read."""
    largest = sorted(sizes, key=lambda pair: -pair[1])[:_AT_ONCE]
    began = time.monotonic()

    def read(name: str) -> int:
        done, buffer = 0, memoryview(bytearray(_READ))
        try:
            with (folder / name).open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    # Why: what is in the page cache says nothing about the disk.
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while done < _MOST // _AT_ONCE and time.monotonic() - began < _SECONDS:
                    got = file.readinto(buffer)
                    if not got:
                        break
                    done += got
        except OSError:
            return done
        return done

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        count = sum(pool.map(read, [name for name, size in largest if size]))
    seconds = time.monotonic() - began
    return count / seconds if count and seconds > 0 else None
