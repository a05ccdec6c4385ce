"""A checkpoint's tensors and config, read from its headers wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.planning.tensors import Tensor
from kimideploy.weights.headers import gguf, safetensors
from kimideploy.weights.places import Place

#: files that are read at the same time
_AT_ONCE = 8
_MOST_JSON = 100_000_000
_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII)

#: told after each file: how many are done, of how many
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the headers of some files say, and the config beside them, if there is one."""

    place: str
    revision: str | None
    files: tuple[str, ...]
    #: bytes of these files
    size: int
    tensors: tuple[Tensor, ...]
    config: Mapping[str, Any] | None


def read_checkpoint(place: Place, pattern: str | None = None, *, told: Progress) -> Checkpoint:
    """Return the checkpoint at *place*: its safetensors, or the GGUF files that *pattern* names.

    Raises WeightsError for files that are missing or broken, and where several checkpoints are
    there and none is named.
    """
    files = _files(place, pattern)
    done = 0
    found: list[tuple[Tensor, ...]] = []
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        try:
            for tensors in pool.map(partial(_header, place), files):
                found.append(tensors)
                done += 1
                told(done, len(files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    tensors = tuple(tensor for part in found for tensor in part)
    _once(tensors)
    return Checkpoint(
        place=place.name,
        revision=place.revision,
        files=tuple(files),
        size=sum(place.sizes[file] for file in files),
        tensors=tensors,
        config=_json(place, "config.json") if "config.json" in place.sizes else None,
    )


def _header(place: Place, file: str) -> tuple[Tensor, ...]:
    parse = safetensors if file.endswith(".safetensors") else gguf
    return parse(file, place.sizes[file], partial(place.read, file))


def _files(place: Place, pattern: str | None) -> list[str]:
    """Return the weight files of one checkpoint, all of them."""
    names = [n for n in place.sizes if pattern is None or fnmatchcase(n, pattern)]
    whole = sorted(name for name in names if name.endswith(".safetensors"))
    if whole:
        return _indexed(place, whole) if pattern is None else whole
    quants: dict[str, list[str]] = {}
    for name in sorted(n for n in names if n.endswith(".gguf") and "mmproj" not in n):
        part = _PART.fullmatch(name)
        quants.setdefault(part[1] if part is not None else name, []).append(name)
    if not quants:
        what = f" that match {pattern!r}" if pattern is not None else ""
        raise WeightsError(f"{place.name} has no safetensors or GGUF files{what}")
    if len(quants) > 1:
        some = ", ".join(list(quants)[:8]) + (", …" if len(quants) > 8 else "")  # noqa: PLR2004
        raise WeightsError(
            f"{place.name} has {len(quants)} checkpoints: {some}",
            hint=f"name one: --files '{next(iter(quants))}*'",
        )
    ((_, files),) = quants.items()
    _all_parts(files)
    return files


def _all_parts(files: Sequence[str]) -> None:
    part = _PART.fullmatch(files[0])
    if part is None:
        return
    wanted = [f"{part[1]}-{n:05d}-of-{part[3]}.gguf" for n in range(1, int(part[3]) + 1)]
    missing = [name for name in wanted if name not in files]
    if missing:
        raise WeightsError(f"{missing[0]} is missing, one of {len(missing)} parts that are")


def _indexed(place: Place, files: list[str]) -> list[str]:
    """Return the files that the index names, where there is one; each must be there."""
    if _INDEX not in place.sizes:
        return files
    named = _json(place, _INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise WeightsError(f"{_INDEX} has no weight_map")
    wanted = sorted(set(named.values()))
    missing = [file for file in wanted if file not in place.sizes]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise WeightsError(f"{missing[0]} is missing{more}: {_INDEX} names it")
    return wanted


def _json(place: Place, name: str) -> dict[str, Any]:
    size = place.sizes[name]
    if size > _MOST_JSON:
        raise WeightsError(f"{name} takes {size:,} bytes, which is no JSON of a model")
    try:
        return msgspec.json.decode(place.read(name, 0, size), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"{name} is no JSON object: {error}") from error


def _once(tensors: Sequence[Tensor]) -> None:
    seen: dict[str, str] = {}
    for tensor in tensors:
        other = seen.setdefault(tensor.name, tensor.file)
        if other is not tensor.file:
            raise WeightsError(f"{tensor.name[:80]!r} is in {other} and in {tensor.file}")
