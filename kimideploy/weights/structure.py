"""Whether files that are whole also make a checkpoint: headers, index, parts.

A hash proves that bytes are the publisher's; this finds what the publisher, or whoever put a
folder together by hand, got wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.planning.tensors import Tensor
from kimideploy.weights.headers import gguf, safetensors
from kimideploy.weights.places import Folder
from kimideploy.weights.selection import INDEX, missing_parts

_AT_ONCE = 8
_MOST_INDEX = 256 << 20
#: sentences about one folder
_MOST = 20


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def faults(folder: Path, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the weight files *names* in *folder*, a sentence each."""
    place = Folder(folder)
    shards = [name for name in names if name.endswith(".safetensors")]
    quants = [name for name in names if name.endswith(".gguf")]
    found = [f"{name} is missing, a part of that GGUF" for name in missing_parts(quants)]

    def read(name: str) -> tuple[str, tuple[Tensor, ...] | str]:
        parse = safetensors if name.endswith(".safetensors") else gguf
        if name not in place.sizes:
            return name, f"{name} is missing"
        try:
            return name, parse(name, place.sizes[name], lambda a, n: place.read(name, a, n))
        except WeightsError as error:
            return name, error.message

    tensors: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for name, result in pool.map(read, sorted([*shards, *quants])):
            if isinstance(result, str):
                found.append(result)
                continue
            for tensor in result if name in shards else ():
                other = tensors.setdefault(tensor.name, name)
                if other != name:
                    found.append(f"{tensor.name[:80]!r} is in {other} and in {name}")
    if INDEX in place.sizes and not found:
        found += _against_index(folder, tensors)
    return found[:_MOST]


def index_of(data: bytes) -> dict[str, str]:
    """Return tensor → shard as an index names them; WeightsError for what is none."""
    try:
        return msgspec.json.decode(data, type=_Index).weight_map
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"{INDEX} is no index: {error}") from error


def _against_index(folder: Path, tensors: dict[str, str]) -> list[str]:
    try:
        with (folder / INDEX).open("rb") as file:
            named = index_of(file.read(_MOST_INDEX))
    except WeightsError as error:
        return [error.message]
    except OSError as error:
        return [f"{INDEX} can't be read: {error.strerror or error}"]
    found = []
    for name, shard in named.items():
        if name not in tensors:
            found.append(f"{name[:80]!r} is in no shard, {INDEX} puts it in {shard}")
        elif tensors[name] != shard:
            found.append(f"{name[:80]!r} is in {tensors[name]}, {INDEX} says {shard}")
        if len(found) >= _MOST:
            break
    return found
