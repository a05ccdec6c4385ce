"""Published measurements: what others ran, as rows of `profiles/measurements/*.csv`.

A row is one number somebody published with its configuration, an exact quote, an address and a
date. Cells are as published and can hold words (`up to 16`, `0.94 (default)`): a number is the
first one in its cell. Confidence A and B can be used; C is rounded or doubtful and is only shown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from kimideploy.catalog.find import plain
from kimideploy.catalog.types import EngineId, Gpu, KvDtype, WeightFormat
from kimideploy.resources import shipped

#: words by which a table says of its own row that the engine was broken
_FAULT = re.compile(r"defect|very slow")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ENGINES: tuple[tuple[str, EngineId], ...] = (
    ("ktransformers", "ktransformers"),
    ("llama", "llamacpp"),
    ("sglang", "sglang"),
    ("vllm", "vllm"),
)
#: as the column weight_format begins, without case
_FORMATS: tuple[tuple[str, WeightFormat], ...] = (
    ("gguf", "gguf"),
    ("nvfp4", "nvfp4"),
    ("mxfp4", "mxfp4"),
    ("fp8", "fp8"),
    ("bf16", "bf16"),
    ("int4", "int4"),
    ("native int4", "int4"),
)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One row, read. None is not stated. Tokens, seconds, tokens per second; GPUs by profile id."""

    id: str
    url: str
    date: str
    #: A, B or C
    confidence: str
    engine: EngineId | None
    model: str
    format: WeightFormat | None
    gpu: str | None
    gpus: int | None
    tp: int
    pp: int
    dp: int
    dcp: int
    ep: bool
    kv_dtype: KvDtype
    #: tokens a draft model guesses ahead, 0 without one
    draft: int
    cells: Mapping[str, str]

    def number(self, column: str) -> float | None:
        """The first number of a cell, None for an empty one or words only."""
        return _number(self.cells.get(column, ""))

    @property
    def at_fault(self) -> bool:
        """Whether the row's own table says that a defect was measured, not the engine."""
        return _FAULT.search(self.cells.get("other", "")) is not None

    @property
    def usable(self) -> bool:
        """Whether the row is good enough to fit to or to judge by."""
        return self.confidence in ("A", "B") and self.engine is not None and not self.at_fault

    @property
    def queued(self) -> bool:
        """Whether requests waited in a queue that never emptied: nobody knows how many ran."""
        return "peak" in self.cells.get("concurrency", "")


def read_measurements(
    kind: str, gpus: Mapping[str, Gpu], folder: Path | None = None
) -> tuple[Measurement, ...]:
    """Return the rows of `KIND.csv` (memory, throughput) in *folder*, or as shipped."""
    names = [(plain(name), gpu.id) for gpu in gpus.values() for name in (gpu.id, *gpu.aliases)]
    names.sort(key=lambda name: -len(name[0]))
    path = (folder or shipped("profiles") / "measurements") / f"{kind}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_read(row, names) for row in csv.DictReader(file))


def _read(row: Mapping[str, str], names: Sequence[tuple[str, str]]) -> Measurement:
    spec = row.get("spec") or row.get("spec_config") or ""
    drafted = re.search(r"(\d+) tokens", spec)
    drafts = spec.strip().lower() not in ("", "none")
    text = row["weight_format"].lower()
    return Measurement(
        id=row["id"],
        url=row["source_url"],
        date=row["date"],
        confidence=row["confidence"][:1],
        engine=next((e for word, e in _ENGINES if word in row["engine"].lower()), None),
        model=row["model"],
        format=next((f for word, f in _FORMATS if text.startswith(word)), None),
        gpu=_gpu(names, row["gpu"]),
        gpus=_whole(row["gpu_count"]),
        tp=_whole(row["tp"]) or 1,
        pp=_whole(row["pp"]) or 1,
        dp=_whole(row["dp"]) or 1,
        dcp=_whole(row["dcp"]) or 1,
        ep=bool(row["ep"].strip()),
        kv_dtype="fp8"
        if "fp8" in row["kv_cache_dtype"]
        else "q8_0"
        if "q8" in row["kv_cache_dtype"]
        else "bf16",
        draft=int(drafted.group(1)) if drafted else 3 if drafts else 0,
        cells=dict(row),
    )


def _gpu(names: Sequence[tuple[str, str]], cell: str) -> str | None:
    """The profile whose longest name the cell begins with, as a word of its own."""
    text = plain(cell)
    for name, gpu in names:
        if text == name or (text.startswith(name) and not text[len(name) :][:1].isdigit()):
            return gpu
    return None


def _number(cell: str) -> float | None:
    found = _NUMBER.search(cell.replace(",", ""))
    return float(found.group()) if found else None


def _whole(cell: str) -> int | None:
    number = _number(cell)
    return int(number) if number is not None else None
