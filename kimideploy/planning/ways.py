"""Ways out of a NoFit: changes that were planned again, and do fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from kimideploy.catalog.types import Catalog, Model
from kimideploy.planning.choose import best_first
from kimideploy.planning.search import Refused, Weighed, search
from kimideploy.planning.types import Inventory, Node, Rejection, Request, WayOut

_MORE_NODES = (2, 3, 4)
#: the least that is tried, and what is enough to stop looking for a larger one
_SMALLEST_CONTEXT = 1024
_USEFUL_CONTEXT = 16_384


def nearest(refused: list[Refused]) -> Refused | None:
    """Return what came nearest to fitting: least bytes short among those weighed on memory."""
    weighed = [r for r in refused if r.fit is not None]
    return min(weighed, key=_missing, default=refused[0] if refused else None)


def _missing(refused: Refused) -> int:
    """Bytes that are missing, on the fullest GPU and in host memory together."""
    fit = refused.fit
    if fit is None:
        return 0
    host = sum(share.bytes for share in fit.ram) - (fit.ram_capacity or 0)
    return fit.short + max(0, host)


def ways_out(
    request: Request,
    inventory: Inventory,
    catalog: Catalog,
    model: Model,
    refused: list[Refused],
) -> tuple[WayOut, ...]:
    """Return the changes that make it fit, the smallest change first; each was planned."""

    came_nearest = nearest(refused)
    close = came_nearest.rejection if came_nearest is not None else None

    def best(changed: Request, nodes: Inventory = inventory) -> Weighed | None:
        fitting, _ = search(changed, nodes, catalog, model)
        ordered = best_first(fitting, changed.goal, catalog)
        return ordered[0] if ordered else None

    found = [
        *_smaller(request, best, close),
        *_same_box(request, best),
        *_more_memory(request, inventory, best, refused),
        *_more_nodes(request, inventory, best, close),
    ]
    unique: dict[str, WayOut] = {}
    for way in found:
        unique.setdefault(way.change, way)
    return tuple(unique.values())


Best = Callable[..., Weighed | None]


def _smaller(request: Request, best: Best, close: Rejection | None) -> Iterator[WayOut]:
    """Ask for less: fewer requests at once, another KV dtype, a shorter context, no vision."""
    replace = msgspec.structs.replace
    if request.concurrency > 1:
        one = best(replace(request, concurrency=1))
        if one is not None:
            at_once = int(one.fit.max_concurrency)
            yield WayOut(
                f"--concurrency {max(1, at_once)}: the cache holds {one.fit.kv_tokens:,} tokens",
                ("--concurrency", str(max(1, at_once))),
                proved=True,
            )
    if request.kv_dtype == "bf16":
        other = best(replace(request, kv_dtype=None))
        if other is not None:
            dtype = other.candidate.kv_dtype
            yield WayOut(f"--kv-dtype {dtype}", ("--kv-dtype", dtype), proved=True)
    tries: tuple[tuple[tuple[str, ...], dict[str, bool]], ...] = (
        ((), {}),
        (("--text-only",), {"text_only": True}),
        (("--allow-tight",), {"allow_tight": True}),
        (("--text-only", "--allow-tight"), {"text_only": True, "allow_tight": True}),
    )
    found = []
    for flags, changes in tries:
        less = best(replace(request, context=None, min_context=_SMALLEST_CONTEXT, **changes))
        if less is None:
            continue
        found.append((less, ("--min-context", str(less.fit.context), *flags)))
        if less.fit.context >= _USEFUL_CONTEXT:
            break
    if found:
        less, words = max(found, key=lambda way: way[0].fit.context)
        tight = "; if the overhead is at its low end" if less.fit.verdict == "tight" else ""
        yield WayOut(
            f"{' '.join(words)}: {less.candidate.label} holds {less.fit.context:,} tokens{tight}",
            words,
            proved=True,
        )
        return
    if close is not None and close.rule == "weights":
        yield WayOut("no smaller --min-context helps: weights and overhead alone exceed the GPUs")


def _same_box(request: Request, best: Best) -> Iterator[WayOut]:
    """Another checkpoint or engine on the same machine."""
    if request.tier is None and request.engine is None and request.checkpoint is None:
        return
    free = msgspec.structs.replace(request, tier=None, engine=None, checkpoint=None)
    for engine in (None, "ktransformers", "llamacpp"):
        other = best(msgspec.structs.replace(free, engine=engine))
        if other is not None:
            candidate = other.candidate
            yield WayOut(
                f"on the same machine, --tier {candidate.tier}: {candidate.label}",
                ("--tier", candidate.tier),
                proved=True,
            )


def _more_memory(
    request: Request, inventory: Inventory, best: Best, refused: list[Refused]
) -> Iterator[WayOut]:
    """Host memory for the experts: a hybrid, or a GGUF quant."""
    if any(node.ram is not None and node.ram > 0 for node in inventory.nodes) and not any(
        r.rejection.rule == "ram" for r in refused
    ):
        return
    free = msgspec.structs.replace(request, tier=None, checkpoint=None)
    for engine, name in (("ktransformers", "hybrid"), ("llamacpp", "GGUF")):
        if request.engine not in (None, engine):
            continue
        for gib in (256, 384, 512, 640, 768, 1024):
            if any(node.ram is not None and node.ram >= gib << 30 for node in inventory.nodes):
                continue
            nodes = tuple(msgspec.structs.replace(node, ram=gib << 30) for node in inventory.nodes)
            changed = msgspec.structs.replace(free, engine=engine)
            other = best(changed, Inventory(nodes=nodes))
            if other is None or not other.fit.ram:
                continue
            words = ("--tier", other.candidate.tier, "--ram", f"{gib}GiB")
            yield WayOut(
                f"{name} with {gib} GiB of host memory: {other.candidate.label}", words, proved=True
            )
            break


def _more_nodes(
    request: Request, inventory: Inventory, best: Best, close: Rejection | None
) -> Iterator[WayOut]:
    """The same checkpoint on more nodes of the kind that came nearest."""
    if close is None or not inventory.nodes or close.candidate.gpu is None:
        return
    like = [node for node in inventory.nodes if node.gpu == close.candidate.gpu]
    checkpoint = request.checkpoint or close.candidate.checkpoint
    changed = msgspec.structs.replace(request, tier=None, checkpoint=checkpoint)
    for count in _MORE_NODES:
        if count <= len(like):
            continue
        nodes = tuple(_copy(like[0], index) for index in range(count))
        other = best(changed, Inventory(nodes=nodes))
        if other is not None and other.candidate.nodes > 1:
            hardware = f"{count}x{like[0].gpus}x{like[0].gpu}"
            yield WayOut(
                f"{count} nodes, {other.candidate.layout}: {other.candidate.label},"
                f" {other.fit.kv_tokens:,} tokens of KV cache",
                ("--hardware", hardware, "--tier", other.candidate.tier),
                proved=True,
            )
            return


def _copy(node: Node, index: int) -> Node:
    return msgspec.structs.replace(node, name=f"node{index}")
