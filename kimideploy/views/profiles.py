"""How profiles are shown."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kimideploy.catalog.types import Catalog

GIB = 1 << 30
Rows = dict[str, list[dict[str, Any]]]


def rows(catalog: Catalog, kind: str | None) -> Rows:
    """Return what `profiles list` shows, by kind; sizes are bytes."""
    every: Rows = {
        "models": [
            {
                "id": model.id,
                "name": model.name,
                "context": model.context,
                "thinking": model.thinking.mode,
                "checkpoints": [checkpoint.id for checkpoint in model.checkpoints],
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
            }
            for engine in catalog.engines.values()
        ],
        "tiers": [
            {"id": tier.id, "title": tier.title, "rank": tier.rank} for tier in catalog.tiers
        ],
    }
    return every if kind is None else {kind: every[kind]}


def tables(found: Rows) -> RenderableType:
    """Return a table for each kind, 80 columns wide at most."""
    parts: list[RenderableType] = []
    for kind, entries in found.items():
        table = Table(title=kind, title_justify="left", box=None, pad_edge=False, expand=False)
        table.add_column("id", no_wrap=True)
        for entry in entries[:1]:
            for key in _columns(entry):
                table.add_column(key)
        for entry in entries:
            table.add_row(entry["id"], *(_cell(key, entry) for key in _columns(entry)))
        parts += [table, Text()]
    return Group(*parts[:-1])


def _columns(entry: dict[str, Any]) -> list[str]:
    return [key for key in entry if key not in ("id", "aliases", "checkpoints", "guess", "rank")]


def _cell(key: str, entry: dict[str, Any]) -> str:
    value = entry[key]
    if key == "memory":
        return f"{value / GIB:.1f} GiB{' (guess)' if entry.get('guess') else ''}"
    return f"{value:,}" if isinstance(value, int) and key != "port" else str(value)


def plain(profile: msgspec.Struct) -> dict[str, Any]:
    """Return a profile as plain data without what is absent."""
    found: dict[str, Any] = msgspec.to_builtins(profile, enc_hook=int)
    present: dict[str, Any] = _present(found)
    return present


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _present(v) for k, v in value.items() if v is not None and v not in ([], {})}
    if isinstance(value, (list, tuple)):
        return [_present(item) for item in value]
    return value


def profile(found: dict[str, Any]) -> RenderableType:
    """Return a profile as a tree; `source` names an entry of its `sources`."""
    tree = Tree(Text(str(found.get("name", found.get("id"))), style="bold"), guide_style="dim")
    _branch(tree, found)
    return tree


def _branch(tree: Tree, value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item and not _short(item):
                _branch(tree.add(Text(str(key), style="cyan")), item)
            else:
                tree.add(Text.assemble((f"{key}: ", "cyan"), _leaf(item)))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                label = item.get("id", item.get("repo", item.get("stage", "·")))
                _branch(tree.add(Text(str(label), style="cyan")), item)
            else:
                tree.add(_leaf(item))


def _short(value: Any) -> bool:
    return isinstance(value, list) and all(not isinstance(item, (dict, list)) for item in value)


def _leaf(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
