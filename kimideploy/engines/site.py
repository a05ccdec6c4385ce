"""Site: one node's share of a plan, with the profiles its command is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimideploy.catalog.find import find_model
from kimideploy.catalog.types import Catalog, Checkpoint, Draft, Engine, Generation, Model
from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Layout, Node, Plan

#: where weights lie when an engine can load local files only and nobody said where they are
MODELS = "/var/lib/kimideploy/models"
#: what the command says where the first node's address is not known; never to be run
HEAD_ADDRESS = "HEAD_ADDRESS"
#: what the command says where the number of GGUF parts is not known; never to be run
FIRST_PART = "FIRST_PART.gguf"
PLACEHOLDERS = (HEAD_ADDRESS, FIRST_PART)
#: where the key lies that clients must send when an engine listens beyond loopback
API_KEY_FILE = "/etc/kimideploy/api.key"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Site:
    """What one command is a function of. `rank` counts the plan's nodes, 0 is the head."""

    plan: Plan
    model: Model
    checkpoint: Checkpoint
    engine: Engine
    generation: Generation | None
    node: Node
    rank: int
    head: str
    layers: int
    dense_layers: int

    @property
    def layout(self) -> Layout:
        """The layout over all nodes."""
        return self.plan.candidate.layout

    @property
    def port(self) -> int:
        """The port asked for, or the engine's own."""
        asked = self.plan.request.port
        return asked if asked is not None else self.engine.port

    @property
    def from_hub(self) -> bool:
        """Whether the engine is given a repo id and fetches the weights by itself."""
        return self._local is None

    @property
    def weights(self) -> str:
        """The folder that was named, or the hub's repo id."""
        return self._local if self._local is not None else self._repo

    @property
    def folder(self) -> str:
        """The folder of local weights: the one that was named, or the usual one."""
        return self._local if self._local is not None else f"{MODELS}/{self._repo}"

    @property
    def revision(self) -> str | None:
        """The commit to load from the hub; a folder has none."""
        return self.plan.pins.revision if self.from_hub else None

    @property
    def vision(self) -> bool:
        """Whether this launch serves images."""
        return self.model.vision is not None and not self.plan.candidate.text_only

    @property
    def draft(self) -> Draft | None:
        """The EAGLE3 draft the plan chose, as this engine is told of it."""
        wanted = self.plan.candidate.draft
        fitting = (d for d in self.model.drafts if self.engine.id in d.engines)
        return next((draft for draft in fitting if draft.repo == wanted), None)

    @property
    def draft_weights(self) -> str | None:
        """The draft's folder where it was pulled, else its repository."""
        if self.draft is None:
            return None
        return self._local_draft if self._local_draft is not None else self.draft.repo

    @property
    def draft_from_hub(self) -> bool:
        """Whether the engine fetches a draft by itself."""
        return self.draft is not None and self._local_draft is None

    @property
    def draft_revision(self) -> str | None:
        """The draft's pinned commit, if the engine fetches it from the hub."""
        return self.plan.pins.draft if self.draft_from_hub else None

    @property
    def attention(self) -> str | None:
        """The attention backend this GPU generation needs to be told, if any."""
        if self.generation is None:
            return None
        return self.generation.attention.get(self.engine.id)

    @property
    def amd(self) -> bool:
        """Whether the GPUs are AMD's."""
        return self.generation is not None and self.generation.vendor == "amd"

    @property
    def cores(self) -> int | None:
        """Physical cores for expert computation, None if nobody knows."""
        offload = self.plan.candidate.offload
        if offload is not None and offload.threads is not None:
            return offload.threads
        return self.node.cores

    @property
    def numa(self) -> int | None:
        """NUMA nodes, None if nobody knows."""
        offload = self.plan.candidate.offload
        if offload is not None and offload.numa is not None:
            return offload.numa
        return self.node.numa

    @property
    def _local(self) -> str | None:
        """The folder or file on the node that was named or pulled."""
        local = self.plan.local
        named = self.plan.request.model_path
        return named if named is not None else local.path if local is not None else None

    @property
    def _local_draft(self) -> str | None:
        """The draft's folder on the node, where it was pulled."""
        return self.plan.local.draft if self.plan.local is not None else None

    @property
    def _repo(self) -> str:
        if self.checkpoint.repo is None:
            raise RequestError(
                f"checkpoint {self.checkpoint.id} of {self.model.name} has no repository",
                hint="--model-path FOLDER names weights that are already there",
            )
        return self.checkpoint.repo

    def say(self, concept: str, *values: object, when: bool = True) -> tuple[str, ...]:
        """Return *concept* in the engine's own word with its values, or nothing unless *when*."""
        if not when:
            return ()
        return (word_of(self.engine, concept), *map(_text, values))


def word_of(engine: Engine, concept: str) -> str:
    """Return the engine's flag for *concept*; RequestError if its profile has none."""
    flag = engine.flags.get(concept)
    if flag is None:
        raise RequestError(
            f"the profile of engine {engine.id} has no flag for {concept!r}",
            hint=f"add it under `flags:` in the profile of {engine.id}",
        )
    return flag.word


def sites(plan: Plan, catalog: Catalog) -> tuple[Site, ...]:
    """Return one Site for each node the plan uses, the head first.

    The nodes are the first ones of the inventory that are like what the candidate was planned
    on. Raises RequestError when the catalog lacks a profile the plan was made with.
    """
    candidate = plan.candidate
    model = find_model(catalog, plan.request.model)
    checkpoint = next((c for c in model.checkpoints if c.id == candidate.checkpoint), None)
    engine = catalog.engines.get(candidate.engine)
    if checkpoint is None or engine is None:
        lacking = f"checkpoint {candidate.checkpoint}" if checkpoint is None else candidate.engine
        raise RequestError(
            f"the plan names {lacking} and no profile knows it",
            hint="give the --profiles the plan was made with",
        )
    architecture = catalog.architectures[model.architecture]
    nodes = _nodes(plan)
    head = plan.request.head_address or nodes[0].address or HEAD_ADDRESS
    return tuple(
        Site(
            plan=plan,
            model=model,
            checkpoint=checkpoint,
            engine=engine,
            generation=catalog.generations.get(node.generation or ""),
            node=node,
            rank=rank,
            head=head,
            layers=architecture.layers,
            dense_layers=architecture.dense_layers,
        )
        for rank, node in enumerate(nodes)
    )


def unresolved(launch: Launch) -> tuple[str, ...]:
    """Return the placeholders in *launch* that must become real words before it can run."""
    return tuple(p for p in PLACEHOLDERS if any(p in word for word in launch.argv))


def _nodes(plan: Plan) -> tuple[Node, ...]:
    candidate = plan.candidate
    alike: dict[int, list[Node]] = {}
    for node in plan.inventory.nodes:
        if node.gpu == candidate.gpu and node.gpus >= candidate.gpus_per_node:
            alike.setdefault(node.gpus, []).append(node)
    for nodes in alike.values():
        if len(nodes) >= candidate.nodes:
            return tuple(nodes[: candidate.nodes])
    raise RequestError(
        f"the plan's inventory does not hold {candidate.nodes} node(s) for {candidate.label}"
    )


def compact(value: Mapping[str, Any]) -> str:
    """Return *value* as JSON on one line, the same text every time."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
