"""Look at this machine before an engine is started: the port, the engine, the weights."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kimideploy.apply.ports import holder
from kimideploy.engines.llamacpp import first_part
from kimideploy.engines.site import Site
from kimideploy.facts.types import HostFacts
from kimideploy.planning.types import Launch

INDEX = "model.safetensors.index.json"
INCOMPLETE = ".incomplete"
#: bytes; an index of 400,000 tensors is below it, and nothing else is called so
_LARGEST_INDEX = 256 << 20
_LARGEST_HEADER = 100 << 20  # the format's own limit


@dataclass(frozen=True, slots=True)
class Port:
    """Whether a launch may listen where it wants to, and who does if not."""

    state: Literal["free", "taken", "forbidden"]
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of weights as it lies there: sizes in bytes by name, and what its index names.

    `promised` is how long each shard is by its own header, where that can be read.
    """

    path: str
    exists: bool
    sizes: Mapping[str, int]
    shards: tuple[str, ...] | None = None
    promised: Mapping[str, int] = field(default_factory=dict)
    broken_index: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at on this machine. `version` None: the engine does not say it."""

    port: Port
    executable: str | None = None
    version: str | None = None
    architecture: str | None = None
    folder: Folder | None = None


def look(site: Site, launch: Launch, host: HostFacts, path: str) -> Seen:
    """Return what the launch would meet here; *path* is the PATH the engine is started with."""
    executable = shutil.which(launch.argv[0], path=path)
    return Seen(
        port=look_at_port(launch.host, launch.port),
        executable=executable,
        version=_version(site.engine.id, executable, host),
        architecture=host.cpu.architecture,
        folder=look_at_folder(_weights(site)) if _is_local(site) else None,
    )


def look_at_port(host: str, port: int) -> Port:
    """Return whether *port* of *host* can be listened on right now."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Why: a port whose connections are still closing is free, and engines take it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Port("taken", holder(port))
        return Port("forbidden", error.strerror or str(error))
    return Port("free")


def look_at_folder(path: Path) -> Folder:
    """Return what lies in *path*, with what was left over by a download into it."""
    sizes: dict[str, int] = {}
    leftovers = path / ".cache" / "huggingface" / "download"
    for place in (path, leftovers):
        try:
            entries = list(os.scandir(place))
        except OSError:
            continue
        for entry in entries:
            size = _size(entry)
            if size is not None and (place is path or entry.name.endswith(INCOMPLETE)):
                sizes[entry.name] = size
    shards, broken = _index(path / INDEX) if INDEX in sizes else (None, None)
    promised = {
        name: whole
        for name in (shards or sizes)
        if name.endswith(".safetensors") and (whole := _by_header(path / name)) is not None
    }
    return Folder(str(path), path.is_dir(), sizes, shards, promised, broken)


def _size(entry: os.DirEntry[str]) -> int | None:
    """Bytes of a file, links followed; None for what is none or leads nowhere."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError:
        return None


def _index(path: Path) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the shards an index names, or why it can't be read."""
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            return None, f"{INDEX} is too large to be one"
        names = set(json.loads(path.read_bytes())["weight_map"].values())
        shards = tuple(sorted(names))
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None, f"{INDEX} is no index: it can't be read as one"
    if not shards or not all(isinstance(name, str) for name in shards):
        return None, f"{INDEX} names no weight files"
    return shards, None


def _by_header(path: Path) -> int | None:
    """Bytes a safetensors file has by its own header; None if it has none that can be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                return None
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors.values()]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
    return 8 + length + max(ends, default=0)


def _weights(site: Site) -> Path:
    return Path(first_part(site)).parent if site.engine.id == "llamacpp" else Path(site.folder)


def _is_local(site: Site) -> bool:
    """Whether the engine reads a folder; the others fetch from the hub by themselves."""
    return not site.from_hub or site.engine.id in ("ktransformers", "llamacpp")


def _version(engine: str, executable: str | None, host: HostFacts) -> str | None:
    """The version the probe read from the environment the executable is in."""
    if executable is None:
        return None
    places = {Path(executable).parent, Path(executable).resolve().parent}
    return next(
        (
            found.version
            for found in host.engines
            if found.engine == engine
            and places & {Path(found.path).parent, Path(found.path).resolve().parent}
        ),
        None,
    )
