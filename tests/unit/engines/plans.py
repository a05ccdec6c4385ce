"""Plans by hand: the planner's values without the planner, one for each way to start an engine."""

from __future__ import annotations

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId, KvDtype
from kimideploy.planning.types import (
    Candidate,
    Fit,
    Inventory,
    Layout,
    Node,
    Offload,
    Pins,
    Plan,
    Request,
)

CATALOG = load_catalog()
#: any 40 hex digits
REVISION = "0123456789abcdef0123456789abcdef01234567"
GGUF = "gguf-ud-q2_k_xl"
DRAFT = "lightseekorg/kimi-k2.7-coder-eagle3.1-mla"
TP8 = Layout(tp=8)
CONTEXT = 131_072
FRACTION = 0.9


def plan(
    engine: EngineId = "vllm",
    gpu: str | None = "h200",
    *,
    layout: Layout = TP8,
    nodes: int = 1,
    checkpoint: str = "int4",
    kv: KvDtype = "bf16",
    draft: str | None = None,
    offload: Offload | None = None,
    served_name: str = "kimi-k2.7-code",
    addresses: tuple[str, ...] = (),
    **request: object,
) -> Plan:
    """Return a plan without launches; everything not named is as on one node of 8 H200."""
    asked = Request(**request)  # type: ignore[arg-type]
    model = CATALOG.models[asked.model]
    found = next(c for c in model.checkpoints if c.id == checkpoint)
    each = layout.gpus // nodes if gpu is not None else 0
    return Plan(
        request=asked,
        inventory=Inventory(
            nodes=tuple(
                Node(
                    name=f"node{index}",
                    gpu=gpu,
                    gpus=each,
                    gpu_memory=int(CATALOG.gpus[gpu].memory.usable) if gpu is not None else 0,
                    generation=CATALOG.gpus[gpu].generation if gpu is not None else None,
                    domain=each,
                    address=addresses[index] if index < len(addresses) else None,
                )
                for index in range(nodes)
            )
        ),
        candidate=Candidate(
            tier="by-hand",
            checkpoint=checkpoint,
            format=found.format,
            engine=engine,
            layout=layout,
            kv_dtype=kv,
            gpu=gpu,
            nodes=nodes,
            gpus_per_node=each,
            text_only=asked.text_only,
            draft=draft,
            offload=offload,
        ),
        fit=Fit(
            verdict="yes",
            capacity=1,
            budget=1,
            memory_fraction=FRACTION,
            shares=(),
            kv_bytes_per_token=1,
            kv_tokens=CONTEXT,
            context=CONTEXT,
            max_concurrency=1.0,
        ),
        why=(),
        pins=Pins(
            repo=found.repo,
            revision=asked.revision,
            engine_version=CATALOG.engines[engine].versions.pinned,
            image=None,
            requirements=(),
            profiles=CATALOG.digest,
            kimideploy="0",
        ),
        served_name=served_name,
        copies=1,
    )


def gguf(gpu: str | None, layout: Layout, offload: Offload, **request: object) -> Plan:
    """Return a plan for llama.cpp with the 2-bit quant most people take."""
    return plan(
        "llamacpp",
        gpu,
        layout=layout,
        checkpoint=GGUF,
        offload=offload,
        **request,  # type: ignore[arg-type]
    )


def hybrid(offload: Offload, **request: object) -> Plan:
    """Return a plan for KTransformers on four 48 GB cards."""
    return plan(
        "ktransformers",
        "rtx4090-48",
        layout=Layout(tp=4),
        offload=offload,
        **request,  # type: ignore[arg-type]
    )
