"""How profiles are shown: a table for each kind, or one profile with the source of each number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kimideploy.catalog.types import Catalog, Engine, Gpu, Model, Source, Tier
from kimideploy.quantities import GIB, Bytes
from kimideploy.views.terminal import Terminal

GB = 10**9
Rows = dict[str, list[dict[str, Any]]]
#: what names an item of a list
_NAMES = ("id", "stage", "version", "repo")
#: what is worth a line only when it is otherwise
_USUAL = (("exists", True), ("official", False), ("lossless", False))


def rows(catalog: Catalog, kind: str | None) -> Rows:
    """Return what `profiles list` knows, by kind; sizes are bytes, None is unknown."""
    every: Rows = {
        "models": [
            {
                "id": model.id,
                "name": model.name,
                "released": model.released,
                "context": model.context,
                "thinking": model.thinking.mode,
                "checkpoints": [c.id for c in model.checkpoints if c.exists],
            }
            for model in catalog.models.values()
        ],
        "gpus": [
            {
                "id": gpu.id,
                "name": gpu.name,
                "generation": gpu.generation,
                "memory": int(gpu.memory.usable),
                "guess": gpu.memory.guess,
                "bandwidth": int(gpu.bandwidth.bytes_per_second) if gpu.bandwidth else None,
                "interconnect": gpu.interconnect.kind,
                "domain": gpu.interconnect.domain,
                "aliases": list(gpu.aliases),
            }
            for gpu in catalog.gpus.values()
        ],
        "engines": [
            {
                "id": engine.id,
                "name": engine.name,
                "pinned": engine.versions.pinned,
                "minimum": engine.versions.minimum,
                "port": engine.port,
                "reasoning_field": engine.reasoning_field,
                "formats": list(engine.formats),
            }
            for engine in catalog.engines.values()
        ],
        "tiers": [
            {"id": tier.id, "rank": tier.rank, "title": tier.title} for tier in catalog.tiers
        ],
    }
    return every if kind is None else {kind: every[kind]}


def tables(found: Rows, terminal: Terminal) -> str:
    """Return a table for each kind; only its last column may run over several lines."""
    lines: list[str] = []
    for kind, entries in found.items():
        cells = [_CELLS[kind](entry) for entry in entries]
        lines += [terminal.paint(_TITLES[kind], "bold")]
        lines += [*_table(cells, terminal), ""]
    if any(entry.get("guess") for entry in found.get("gpus", ())):
        lines += [terminal.paint("~ a guess: nobody measured or stated it", "dim"), ""]
    return terminal.shown(lines[:-1])


def _table(cells: Sequence[Mapping[str, str]], terminal: Terminal) -> list[str]:
    if not cells:
        return ["  none"]
    *narrow, last = cells[0]
    widths = {key: max(len(key), *(len(row[key]) for row in cells)) for key in narrow}

    def line(row: Mapping[str, str]) -> str:
        return "  " + "  ".join(row[key].ljust(widths[key]) for key in narrow) + "  "

    lines = [terminal.paint((line({key: key for key in narrow}) + last).rstrip(), "dim")]
    for row in cells:
        first = line(row)
        lines += terminal.wrapped(row[last], first=first, rest=" " * len(first))
    return lines


def _model_cells(entry: Mapping[str, Any]) -> dict[str, str]:
    kinds: dict[str, int] = {}
    for checkpoint in entry["checkpoints"]:
        kinds[checkpoint.split("-")[0]] = kinds.get(checkpoint.split("-")[0], 0) + 1
    return {
        "id": entry["id"],
        "released": entry["released"],
        "context": f"{entry['context']:,}",
        "thinking": entry["thinking"],
        "weights": ", ".join(f"{n} × {kind}" if n > 1 else kind for kind, n in kinds.items()),
    }


def _gpu_cells(entry: Mapping[str, Any]) -> dict[str, str]:
    speed, domain = entry["bandwidth"], entry["domain"]
    return {
        "id": entry["id"],
        "name": entry["name"].removeprefix("NVIDIA ").removeprefix("AMD Instinct "),
        "GiB": f"{'~' if entry['guess'] else ''}{entry['memory'] / GIB:.1f}",
        "TB/s": f"{speed / GB / 1000:.2f}" if speed is not None else "?",
        "links": entry["interconnect"] + (f" × {domain}" if domain > 1 else ""),
    }


def _engine_cells(entry: Mapping[str, Any]) -> dict[str, str]:
    return {
        "id": entry["id"],
        "version": entry["pinned"],
        "at least": entry["minimum"],
        "port": str(entry["port"]),
        "reasoning in": entry["reasoning_field"],
        "weights": ", ".join(entry["formats"]),
    }


def _tier_cells(entry: Mapping[str, Any]) -> dict[str, str]:
    return {"id": entry["id"], "title": entry["title"]}


_TITLES = {"models": "Models", "gpus": "GPUs", "engines": "Engines", "tiers": "Tiers"}
_CELLS = {
    "models": _model_cells,
    "gpus": _gpu_cells,
    "engines": _engine_cells,
    "tiers": _tier_cells,
}


def as_json(profile: msgspec.Struct) -> str:
    """Return a profile with its sources as an indented JSON object; sizes are bytes."""
    text = msgspec.json.encode(profile, enc_hook=int)
    return msgspec.json.format(text, indent=2).decode() + "\n"


def shown(profile: Model | Gpu | Engine | Tier, terminal: Terminal) -> str:
    """Return what `profiles show` prints; [x] names an entry of the sources at the end."""
    title = profile.title if isinstance(profile, Tier) else profile.name
    lines = [terminal.paint(title, "bold") + _marks(profile)]
    lines += _fields(profile, terminal, 1)
    sources = profile.sources if not isinstance(profile, Tier) else {}
    if sources:
        lines += ["", terminal.paint("Sources", "bold")]
    for key, source in sources.items():
        lines += terminal.wrapped(_joined(source), first=f"  [{key}] ", rest="    ")
        lines.append(terminal.paint(f"    {source.url}", "cyan"))
    return terminal.shown(lines)


def _joined(source: Source) -> str:
    return source.date if source.note is None else f"{source.date}: {source.note}"


def _marks(value: msgspec.Struct) -> str:
    """` [source]`, and whether it is a guess."""
    source = getattr(value, "source", None)
    mark = f" [{source}]" if source is not None else ""
    return f"{mark} ~ a guess" if getattr(value, "guess", False) else mark


def _fields(value: msgspec.Struct, terminal: Terminal, depth: int) -> Iterator[str]:
    above = {"source", "sources", "guess", "name", "title"}
    if depth > 1:
        above.add(_name_key(value))
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if name in above or inner in (None, (), {}) or (name, inner) in _USUAL:
            continue
        yield from _entry(name, inner, terminal, depth)


def _entry(name: str, value: Any, terminal: Terminal, depth: int) -> Iterator[str]:
    indent = "  " * depth
    key = terminal.paint(name, "cyan")
    if isinstance(value, msgspec.Struct):
        word = _only_word(value)
        if word is not None:
            yield f"{indent}{key}: {word}"
            return
        yield f"{indent}{key}{_marks(value)}"
        yield from _fields(value, terminal, depth + 1)
    elif isinstance(value, dict):
        yield f"{indent}{key}"
        for inner, item in value.items():
            yield from _entry(str(inner), item, terminal, depth + 1)
    elif isinstance(value, tuple) and any(isinstance(item, msgspec.Struct) for item in value):
        yield f"{indent}{key}"
        for item in value:
            yield from _entry(str(getattr(item, _name_key(item))), item, terminal, depth + 1)
    else:
        first, *rest = terminal.wrapped(
            _text(name, value), first=f"{indent}{name}: ", rest=f"{indent}  "
        )
        yield indent + key + first[len(indent) + len(name) :]
        yield from rest


def _only_word(value: msgspec.Struct) -> str | None:
    """Return the one thing a struct says, as a flag's word, or None if it says more."""
    said = [f for f in value.__struct_fields__ if getattr(value, f) not in (None, (), {}, False)]
    return str(getattr(value, said[0])) if said in (["word"], ["support"]) else None


def _name_key(item: msgspec.Struct) -> str:
    return next((key for key in _NAMES if hasattr(item, key)), "")


def _text(name: str, value: Any) -> str:
    match value:
        case tuple():
            return ", ".join(str(item) for item in value)
        case Bytes() if name == "bytes_per_second":
            return f"{value / GB:,.0f} GB/s"
        case Bytes():
            return f"{value / GB:,.2f} GB, {value / GIB:,.2f} GiB"
        case bool():
            return "yes" if value else "no"
        case int() if name in ("context", "min_context", "max_tokens_default", "vocabulary"):
            return f"{value:,}"
        case _:
            return str(value)
