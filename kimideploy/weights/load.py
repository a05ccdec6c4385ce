"""How long an engine will read weights from a disk: its kind, and its rate, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kimideploy.facts.filesystems import Kind, kind_of
from kimideploy.facts.probe.folder import READERS, filesystem, read_rate
from kimideploy.weights.types import Load

#: bytes and seconds of a measurement
_MOST, _SECONDS = 8 << 30, 3.0
#: a load longer than this is worth a word, in seconds: vLLM's own deadline is 600
_LONG = 600.0


def look(folder: Path, sizes: Sequence[tuple[str, int]], *, measure: bool) -> Load:
    """Return what reading the files of *folder* will be like; *measure* reads for some seconds."""
    name = filesystem(str(folder))
    kind = kind_of(name)
    total = sum(size for _, size in sizes)
    largest = sorted(sizes, key=lambda pair: -pair[1])[:READERS]
    paths = [str(folder / name) for name, size in largest if size]
    rate = read_rate(paths, seconds=_SECONDS, most=_MOST) if measure else None
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
