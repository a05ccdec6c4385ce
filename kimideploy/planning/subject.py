"""Subject: one candidate with everything the rules and the arithmetic ask about it."""

from __future__ import annotations

from dataclasses import dataclass

from kimideploy.catalog.types import (
    Architecture,
    Checkpoint,
    Draft,
    Engine,
    Format,
    Generation,
    Gpu,
    KvDtype,
    Model,
)
from kimideploy.planning.types import Candidate, Layout, Node, Request


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint on an engine on `nodes` nodes like `node`, laid out and cached in one way."""

    request: Request
    model: Model
    architecture: Architecture
    checkpoint: Checkpoint
    form: Format | None
    engine: Engine
    gpu: Gpu | None
    generation: Generation | None
    node: Node
    nodes: int
    layout: Layout
    kv_dtype: KvDtype
    tier: str

    @property
    def draft(self) -> Draft | None:
        """The draft model that the engine would load, if one is asked for and known."""
        if not self.request.draft:
            return None
        fitting = [draft for draft in self.model.drafts if self.engine.id in draft.engines]
        return fitting[0] if fitting else None

    @property
    def vision(self) -> int:
        """Bytes of the vision tower this launch loads."""
        if self.request.text_only or self.model.vision is None or self.form is None:
            return 0
        return int(self.model.vision.bytes)

    @property
    def min_context(self) -> int:
        """The least context that makes sense for this request."""
        given = self.request.min_context
        return min(given if given is not None else self.model.min_context, self.wanted_context)

    @property
    def wanted_context(self) -> int:
        """The context to give if memory allows."""
        given = self.request.context
        return given if given is not None else self.model.context

    def candidate(self) -> Candidate:
        """Return the candidate this subject is about, without offload."""
        return Candidate(
            tier=self.tier,
            checkpoint=self.checkpoint.id,
            format=self.checkpoint.format,
            engine=self.engine.id,
            layout=self.layout,
            kv_dtype=self.kv_dtype,
            gpu=self.gpu.id if self.gpu is not None else None,
            nodes=self.nodes,
            gpus_per_node=self.layout.gpus // self.nodes if self.node.gpus else 0,
            text_only=self.request.text_only,
            draft=self.draft.repo if self.draft is not None else None,
        )
