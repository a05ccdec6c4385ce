"""Which plans a notice of `notices.yaml` is for."""

from __future__ import annotations

from kimideploy.catalog.types import Generation, When
from kimideploy.planning.types import Candidate


def applies(
    when: When, c: Candidate, model: str, generation: Generation | None, kind: str | None
) -> bool:
    """Return whether every condition of *when* that is present holds; *kind* is of the links."""
    offload = c.offload is not None and (
        c.offload.cpu_layers > 0 or c.offload.gpu_experts is not None
    )
    members: tuple[tuple[tuple[str, ...], str | None], ...] = (
        (when.models, model),
        (when.formats, c.format),
        (when.engines, c.engine),
        (when.gpus, c.gpu),
        (when.generations, generation.id if generation is not None else None),
        (when.vendors, generation.vendor if generation is not None else None),
        (when.interconnects, kind),
        (when.kv, c.kv_dtype),
    )
    least = (
        (when.tp, c.layout.tp),
        (when.pp, c.layout.pp),
        (when.dcp, c.layout.dcp),
        (when.dp, c.layout.dp),
        (when.nodes, c.nodes),
    )
    exact = ((when.ep, c.layout.ep), (when.draft, c.draft is not None), (when.offload, offload))
    return (
        all(not allowed or value in allowed for allowed, value in members)
        and (when.tp_most is None or c.layout.tp <= when.tp_most)
        and all(bound is None or value >= bound for bound, value in least)
        and all(wanted is None or value == wanted for wanted, value in exact)
    )
