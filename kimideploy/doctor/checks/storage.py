"""The weights and the disks: whole, fast enough, and with room."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from kimideploy.doctor.aims import folder_of
from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import PLANNED, check
from kimideploy.doctor.types import Finding
from kimideploy.engines.llamacpp import first_part
from kimideploy.errors import WeightsError
from kimideploy.facts.filesystems import kind_of
from kimideploy.facts.types import FolderFacts
from kimideploy.quantities import GIB, decimal

_INCOMPLETE = ".incomplete"


@check(
    "weights",
    "blocks",
    scope=PLANNED,
    why="an engine notices a missing shard after it has read all the others",
    link="https://github.com/huggingface/xet-core/issues/883",
    refusal=WeightsError,
)
def weights(case: Case) -> Iterator[Finding]:
    """The weights are all there, by name and size; hashes are not asked for."""
    if case.pulls:
        return
    site = case.plan
    if folder_of(site) is None:
        yield Finding(
            f"{site.engine.name} fetches {site.weights} itself, and nothing checks what comes",
            "--model-path FOLDER with the weights in it",
            "warns",
        )
        return
    folder: FolderFacts = case.known(case.facts.weights, "weights")
    problem = _lacking(case, folder)
    if problem is not None:
        yield Finding(
            f"{folder.path}: {problem}",
            "fetch what is missing, or name the right folder with --model-path",
        )
    elif _unfinished(folder):
        yield Finding(
            f"{folder.path}: all there, and {_unfinished(folder)} left over from a broken download",
            "delete the *.incomplete files, nothing needs them",
            "warns",
        )
    else:
        size = sum(folder.sizes.values()) / GIB
        yield Finding(f"{folder.path}: {size:.1f} GiB, all there", severity="fine")


@check(
    "weights-filesystem",
    "warns",
    scope=PLANNED,
    why="engines map files and read them page by page; over a network a cold load took 78 minutes",
    link="https://github.com/huggingface/physics-intern",
)
def weights_filesystem(case: Case) -> Iterator[Finding]:
    """The weights lie on a disk of this machine."""
    folder = _folder(case)
    kind = kind_of(case.known(folder.filesystem, "weights"))
    if kind == "network":
        ahead = "--safetensors-load-strategy" in case.command.argv
        if not ahead:
            yield Finding(
                f"{folder.path} is on {folder.filesystem}, a network file system",
                "--safetensors-load-strategy prefetch makes vLLM read ahead",
            )
    elif kind == "memory":
        yield Finding(
            f"{folder.path} is on {folder.filesystem}, which takes the memory that the engine"
            " loads into",
            "put the weights on a disk",
        )
    elif kind == "overlay":
        yield Finding(f"{folder.path} is in a container's own layer", "put the weights on a volume")


@check(
    "weights-rate",
    "notes",
    scope=PLANNED,
    why="the machine is paid for while it loads",
    link="https://github.com/vllm-project/vllm-ascend/issues/10343",
)
def weights_rate(case: Case) -> Iterator[Finding]:
    """The disk reads the weights within ten minutes."""
    rate = case.known(_folder(case).read_rate, "read rate", "weights")
    size = case.known(case.size)
    seconds = size / rate
    most = case.count("long_load")
    if seconds > most:
        yield Finding(
            f"{decimal(rate)}/s were read: {decimal(size)} take {seconds / 60:.0f} min",
            "a faster disk, or more of them",
            "warns" if seconds > 3 * most else None,
        )


@check(
    "disk-weights",
    "blocks",
    scope=PLANNED,
    why="a disk that is full ends the pull after hours",
    link="https://github.com/huggingface/huggingface_hub/issues/3868",
    refusal=WeightsError,
)
def disk_weights(case: Case) -> Iterator[Finding]:
    """There is room for the weights that are still to come."""
    if not case.pulls:
        return
    size = case.plan.checkpoint.size
    folder = _folder(case)
    free = case.known(folder.free, "room for the weights", "weights")
    there = sum(folder.sizes.values())
    if size is not None and free + there < int(size):
        yield Finding(
            f"{folder.path} has {decimal(free)} free, and {decimal(int(size) - there)} are to come",
            "--to DIR on a larger disk; kimideploy weights prune removes old ones",
            # Why: what is there already, the pull itself finds out, before its first byte.
            "warns" if there else None,
        )


@check(
    "disk-caches",
    "warns",
    why="compiled kernels and graphs are kept, and a full disk ends the engine while it compiles",
    link="https://docs.vllm.ai/en/latest/design/torch_compile/",
)
def disk_caches(case: Case) -> Iterator[Finding]:
    """There is room for compiled kernels, and for temporary files."""
    home = "/var/cache/kimideploy" if case.unit else case.known(case.facts.home, "limits")
    places = dict.fromkeys((posixpath.join(home, ".cache"), case.environment.get("TMPDIR", "/tmp")))
    told: set[str] = set()
    seen = False
    for place in places:
        disk = case.disk(place)
        if disk is None or disk.free is None:
            continue
        seen = True
        if disk.free < case.bytes("caches") and disk.mount not in told:
            told.add(disk.mount)
            yield Finding(
                f"{disk.mount} has {decimal(disk.free)} free, where {place} lies",
                "free some, or set XDG_CACHE_HOME and TMPDIR to a larger disk",
            )
    if not seen:
        raise Unseen(case.reason("disk") or "no disk is told")


def _folder(case: Case) -> FolderFacts:
    found: FolderFacts = case.known(case.facts.weights, "weights")
    return found


def _lacking(case: Case, folder: FolderFacts) -> str | None:
    """What makes the folder incomplete, in words."""
    if not folder.exists:
        return "there is no such folder"
    if case.plan.engine.id == "llamacpp":
        wanted = _parts(posixpath.basename(first_part(case.plan)))
    elif "config.json" not in folder.sizes:
        return "there is no config.json in it, so this is no model"
    elif folder.broken_index is not None:
        return folder.broken_index
    else:
        wanted = folder.shards or ("model.safetensors",)
    gone = [name for name in wanted if not folder.sizes.get(name)]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        unfinished = _unfinished(folder)
        pulled = f"; {unfinished} are of a download that did not end" if unfinished else ""
        return f"{gone[0]}{more} of {len(wanted)} weight files missing or empty{pulled}"
    for name in wanted:
        if folder.sizes[name] < folder.promised.get(name, 0):
            held, whole = folder.sizes[name], folder.promised[name]
            return f"{name} is cut off: {held:,} of {whole:,} bytes are there"
    return None


def _parts(first: str) -> tuple[str, ...]:
    """Return all parts of a GGUF from the name of the first."""
    head, _, tail = first.rpartition("-of-")
    count = tail.removesuffix(".gguf")
    if not head.endswith("-00001") or not count.isdecimal():
        return (first,)
    stem = head.removesuffix("00001")
    return tuple(f"{stem}{part:05}-of-{count}.gguf" for part in range(1, int(count) + 1))


def _unfinished(folder: FolderFacts) -> str | None:
    names = [name for name in folder.sizes if name.endswith(_INCOMPLETE)]
    return f"{len(names)} *.incomplete files" if names else None
