"""Which candidates there are: checkpoint × engine × layout on each group of like nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kimideploy.catalog.types import Catalog, Checkpoint, Engine, KvDtype, Model, Tier
from kimideploy.planning.inventory import Group
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Layout, Request

#: numbers of nodes that are tried; PP over 2, 3 and 4 nodes is reported, 8 is the rule's limit
_NODE_COUNTS = (1, 2, 3, 4, 8)


def subjects(request: Request, group: Group, catalog: Catalog, model: Model) -> Iterator[Subject]:
    """Yield every base candidate of *group*: its layout without DCP, EP and KV variants."""
    node = group.node
    gpu = catalog.gpus[node.gpu] if node.gpu is not None else None
    generation = catalog.generations[node.generation] if node.generation is not None else None
    for checkpoint in model.checkpoints:
        if request.checkpoint is not None and checkpoint.id != request.checkpoint:
            continue
        for engine in catalog.engines.values():
            if not _considered(request, checkpoint, engine):
                continue
            for nodes, layout in _layouts(engine, group):
                tier = _tier(catalog, checkpoint, engine, group, nodes)
                if request.tier is not None and (tier is None or tier.id != request.tier):
                    continue
                yield Subject(
                    request=request,
                    model=model,
                    architecture=catalog.architectures[model.architecture],
                    checkpoint=checkpoint,
                    form=catalog.formats.get(checkpoint.format),
                    engine=engine,
                    gpu=gpu,
                    generation=generation,
                    node=node,
                    nodes=nodes,
                    layout=layout,
                    kv_dtype=request.kv_dtype or "bf16",
                    tier=tier.id if tier is not None else checkpoint.format,
                    known=catalog.overhead,
                    disk=catalog.speed.load.typical,
                )


def variants(base: Subject) -> Iterator[Subject]:
    """Yield *base* with every KV dtype, DCP size and expert parallelism its engine knows."""
    asked = base.request.kv_dtype
    dtypes: tuple[KvDtype, ...] = (asked,) if asked is not None else base.engine.kv
    layout = base.layout
    dcps: tuple[int, ...] = (1,)
    if base.request.dcp is not None:
        dcps = (base.request.dcp,)
    elif "dcp" in base.engine.layouts and layout.tp > 1:
        dcps = (1, layout.tp)
    eps = (layout.ep, True) if "ep" in base.engine.layouts and layout.tp > 1 else (layout.ep,)
    for dtype in dtypes:
        for dcp in dcps:
            for ep in dict.fromkeys(eps):
                yield replace(
                    base,
                    kv_dtype=dtype,
                    layout=Layout(tp=layout.tp, pp=layout.pp, dp=layout.dp, dcp=dcp, ep=ep),
                )


def _considered(request: Request, checkpoint: Checkpoint, engine: Engine) -> bool:
    if request.engine is not None and engine.id != request.engine:
        return False
    if not checkpoint.exists:
        return engine.id == (request.engine or "vllm")
    return request.engine is not None or engine.id in checkpoint.engines


def _layouts(engine: Engine, group: Group) -> Iterator[tuple[int, Layout]]:
    """Yield (nodes, layout), the largest TP first."""
    gpus, domain = group.node.gpus, group.node.domain
    if engine.id == "llamacpp":
        yield 1, Layout(pp=max(1, gpus))
        return
    if not gpus:
        yield 1, Layout()
        return
    tps = sorted({gpus, *(2**power for power in range(7) if 2**power <= gpus)}, reverse=True)
    for nodes in _NODE_COUNTS:
        if nodes > len(group.nodes) or (nodes > 1 and not engine.multi_node):
            break
        if nodes == 1:
            for tp in tps:
                yield 1, Layout(tp=tp)
            if domain >= gpus > 1 and {"dp", "ep"} <= set(engine.layouts):
                yield 1, Layout(dp=gpus, ep=True)
            continue
        yield nodes, Layout(tp=gpus, pp=nodes)
        # Why: TP over two nodes is what people ask for; without one NVLink domain it is refused
        # by name (tp-domain), with it (GB200, GB300) it is the best layout.
        if nodes == 2 or domain >= gpus * nodes:  # noqa: PLR2004
            yield nodes, Layout(tp=gpus * nodes)


def _tier(
    catalog: Catalog, checkpoint: Checkpoint, engine: Engine, group: Group, nodes: int
) -> Tier | None:
    """Return the first tier, in file order, that the candidate belongs to."""
    node = group.node
    for tier in catalog.tiers:
        if checkpoint.format not in tier.formats or (
            tier.engines and engine.id not in tier.engines
        ):
            continue
        if tier.gpus and node.gpu not in tier.gpus:
            continue
        if tier.generations and node.generation not in tier.generations:
            continue
        if tier.nodes is not None and not tier.nodes[0] <= nodes <= tier.nodes[1]:
            continue
        bits = checkpoint.bits
        if tier.bits is not None and (bits is None or not tier.bits[0] <= bits <= tier.bits[1]):
            continue
        if tier.lossless is not None and checkpoint.lossless != tier.lossless:
            continue
        return tier
    return None
