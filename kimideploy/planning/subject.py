"""Subject: one candidate with everything the rules and the arithmetic ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from kimideploy.catalog.fitted import OverheadFile
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
from kimideploy.planning.overhead import Parameters, Situation
from kimideploy.planning.types import Candidate, Layout, Node, Request

#: engine and kind of link whose startup logs the overhead was fitted to
_LOGGED = (("vllm", "pcie"), ("vllm", "nvlink"))
#: what is added to the margin where nobody measured what an engine sees of the card
_UNMEASURED = 0.005


@dataclass(frozen=True)
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
    #: what is known of GPU memory beside weights and cache
    known: OverheadFile
    #: bytes a second that a disk of the machine gives, typically
    disk: float = 0.0
    #: the vision tower split over the TP ranks instead of whole on each
    vision_split: bool = False

    @cached_property
    def overheads(self) -> Parameters:
        """The parameters of `planning.overhead` by name."""
        return {name: entry.value for name, entry in self.known.parameters.items()}

    @cached_property
    def situation(self) -> Situation:
        """What the engine's overhead depends on beside its settings."""
        return Situation(
            engine=self.engine.id,
            architecture=self.architecture,
            layout=self.layout,
            generation=self.generation.id if self.generation is not None else None,
            link=self.gpu.interconnect.kind if self.gpu is not None else "pcie",
            capacity=self.node.gpu_memory,
            draft=self.draft.tokens if self.draft is not None else 0,
        )

    @cached_property
    def spread(self) -> int:
        """Bytes on one GPU that four of five logs lie within of the prediction."""
        link = self.situation.link.removesuffix("-bridge")
        logged = (self.engine.id, link) in _LOGGED
        margin = int(self.known.spreads["measured" if logged else "other"].bytes)
        guessed = self.gpu is None or self.gpu.memory.guess
        return margin + (int(self.node.gpu_memory * _UNMEASURED) if guessed else 0)

    @property
    def sets_aside_too_much(self) -> bool:
        """Whether vLLM's estimate of graph memory is known to be several times what they take."""
        generation = self.generation.id if self.generation is not None else None
        return f"graph.{generation}" in self.overheads

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
        share = self.layout.tp if self.vision_split else 1
        return int(self.model.vision.bytes) // share

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
