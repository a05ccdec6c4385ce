"""The `--hardware` grammar: a machine one does not have yet, in one word.

8xH200                     one node with eight GPUs
2x8xH100-80GB              two nodes with eight GPUs each
1xRTX4090+512GiB           one node, one GPU, 512 GiB of host memory
0+768GiB                   a node without GPUs
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kimideploy.errors import RequestError
from kimideploy.quantities import parse_bytes

_HARDWARE = re.compile(
    r"(?:(?P<nodes>[0-9]{1,6})x)?(?P<gpus>[0-9]{1,4})x(?P<gpu>[A-Za-z][A-Za-z0-9_. -]{0,40}?)"
    r"(?:\+(?P<ram>[^+]{1,20}))?",
    re.IGNORECASE | re.ASCII,
)
_NO_GPU = re.compile(r"0(?:\+(?P<ram>[^+]{1,20}))?", re.ASCII)
MOST_GPUS = 100_000
MOST_RAM = 1 << 47  # 128 TiB: above any node sold; a longer number is a slip


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a hardware word says; `gpu` is still the user's own spelling, sizes are bytes."""

    nodes: int
    gpus: int
    gpu: str | None
    ram: int | None = None


def parse_hardware(text: str) -> Hardware:
    """Return what *text* names; raises RequestError that points at the part it can't read."""
    word = text.strip()
    bare = _NO_GPU.fullmatch(word)
    if bare is not None:
        return Hardware(nodes=1, gpus=0, gpu=None, ram=_ram(bare["ram"], text))
    found = _HARDWARE.fullmatch(word)
    if found is None:
        raise RequestError(
            f"--hardware {text!r} is not of the form [NODESx]GPUSxNAME[+RAM]",
            hint="for example: --hardware 8xH200, 2x8xH100-80GB or 1xRTX4090+512GiB",
        )
    nodes, gpus = int(found["nodes"] or 1), int(found["gpus"])
    if nodes < 1 or gpus < 1:
        raise RequestError(
            f"--hardware {text!r} names no GPU at all",
            hint="a node without GPUs is written with its memory alone: --hardware 0+768GiB",
        )
    if nodes * gpus > MOST_GPUS:
        raise RequestError(f"--hardware {text!r} asks for more than {MOST_GPUS} GPUs")
    return Hardware(nodes=nodes, gpus=gpus, gpu=found["gpu"].strip(), ram=_ram(found["ram"], text))


def _ram(word: str | None, text: str) -> int | None:
    if word is None:
        return None
    try:
        size = parse_bytes(word)
    except ValueError as error:
        raise RequestError(f"--hardware {text!r}: the memory after '+': {error}") from error
    if not 0 < size <= MOST_RAM:
        raise RequestError(f"--hardware {text!r}: {word!r} is no host memory of a real node")
    return size
