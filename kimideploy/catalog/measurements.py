"""Published measurements: what others ran, as rows of `profiles/measurements/*.csv`.

A row is one number somebody published with its configuration, an exact quote, an address and a
date. Cells are as published and can hold words (`up to 16`, `0.94 (default)`): a number is the
first one in its cell. Confidence A and B can be used; C is rounded or doubtful and is only shown.

Reading is strict about what a mistake would hide in: a column that is missing or a cell that is
too many, two rows of one id, a confidence nobody knows, `nan` or a negative where a number goes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from kimideploy.catalog.find import plain
from kimideploy.catalog.types import EngineId, Gpu, KvDtype, WeightFormat
from kimideploy.errors import RequestError
from kimideploy.resources import shipped

#: words by which a table says of its own row that the engine was broken
_FAULT = re.compile(r"defect|very slow")
_MEAN = re.compile(r"mean (\d+)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
#: what every row says, and what the rows of a kind say besides
_COLUMNS = (
    *("id", "engine", "model", "weight_format", "gpu", "gpu_count", "tp", "pp", "dp", "dcp", "ep"),
    *("kv_cache_dtype", "other", "confidence", "source_url", "quote", "date"),
)
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "memory": (
        *("mem_fraction", "max_model_len", "max_num_batched_tokens", "max_num_seqs"),
        *("kv_tokens", "load_seconds"),
    ),
    "throughput": (
        *("concurrency", "input_len", "output_len", "context_len", "output_tok_s"),
        *("output_tok_s_per_user", "prefill_tok_s", "mean_tpot_ms"),
    ),
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "memory": ("spec_config", "mm_config", "cudagraph_note", "outcome"),
    "throughput": ("spec",),
}
_LENGTH = ("more or fewer cells than the header has columns", "")
_CONFIDENCES = ("A", "B", "C")
_NO_NUMBER = re.compile(r"^\s*(?:[-+]?(?:nan|inf|infinity)\b|-\s*\d)", re.IGNORECASE)
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

    def length(self, column: str) -> float | None:
        """Tokens of a prompt or an answer: their mean where a spread is stated."""
        found = _MEAN.search(self.cells.get(column, ""))
        return float(found.group(1)) if found else self.number(column)

    @property
    def depth(self) -> float:
        """Tokens in a sequence while it is answered, 0 where its context is short or not stated."""
        given, asked = self.length("input_len"), self.length("output_len")
        if given is None or asked is None:
            return self.number("context_len") or 0.0
        return given + asked / 2

    @property
    def fed(self) -> float | None:
        """Input tokens read for every output token meanwhile, None where no prompt is stated."""
        given, asked = self.length("input_len"), self.length("output_len")
        return given / asked if given is not None and asked else None

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
    """Return the rows of `KIND.csv` (memory, throughput) in *folder*, or as shipped.

    Raises RequestError that starts with FILE:LINE:COLUMN for the first thing that is wrong.
    """
    if kind not in _NUMBERS:
        kinds = ", ".join(_NUMBERS)
        raise RequestError(f"{kind!r} is no kind of measurement", hint=f"kinds: {kinds}")
    names = [(plain(name), gpu.id) for gpu in gpus.values() for name in (gpu.id, *gpu.aliases)]
    names.sort(key=lambda name: -len(name[0]))
    path = (folder or shipped("profiles") / "measurements") / f"{kind}.csv"
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} can't be read: {error}") from error
    return tuple(_read(row, names) for row in _rows(text, kind, str(path)))


def _rows(text: str, kind: str, name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of *text*, each checked."""
    lines = text.splitlines()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    seen: set[str] = set()
    line = 1
    try:
        for cells in reader:
            if header:
                row = dict(zip(header, cells, strict=False))
                wrong = _wrong(row, kind, seen) if len(cells) == len(header) else _LENGTH
            else:
                header, row = cells, {}
                wrong = _misses(header, kind)
            if wrong is not None:
                what, cell = wrong
                at = re.search(f'(?:^|,)"?(?={re.escape(cell)})', lines[line - 1])
                column = at.end() + 1 if at is not None and cell else 1
                raise RequestError(f"{name}:{line}:{column}: {what}")
            if row:
                seen.add(row["id"])
                yield row
            line = reader.line_num + 1
    except csv.Error as error:
        raise RequestError(f"{name}:{line}:1: {error}") from error
    if not header:
        raise RequestError(f"{name}:1:1: the header is missing")


def _misses(header: Sequence[str], kind: str) -> tuple[str, str] | None:
    """What is wrong with a header and the cell it stands in, or None."""
    for column in (*_COLUMNS, *_NUMBERS[kind], *_WORDS[kind]):
        if header.count(column) != 1:
            there = column if column in header else ""
            return f"{header.count(column)} columns are called `{column}`", there
    return None


def _wrong(row: Mapping[str, str], kind: str, seen: Collection[str]) -> tuple[str, str] | None:
    """What is wrong with a row and the cell it stands in, or None; *seen* are ids before it."""
    name, confidence = row["id"], row["confidence"]
    if not name.strip() or name in seen:
        return f"the id {name!r} is empty or taken", name
    if not confidence.startswith(_CONFIDENCES):
        return f"confidence {confidence!r} is none of {', '.join(_CONFIDENCES)}", confidence
    for column in (*_NUMBERS[kind], "gpu_count", "tp", "pp", "dp", "dcp"):
        if _NO_NUMBER.match(row[column]):
            return f"{row[column]!r} is no number for `{column}`", row[column]
    return None


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
