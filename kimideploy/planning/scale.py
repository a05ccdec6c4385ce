"""weigh: a checkpoint's own sums beside what the arithmetic on its config comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kimideploy.catalog.types import Architecture, Catalog
from kimideploy.catalog.types import Checkpoint as Profiled
from kimideploy.errors import RequestError
from kimideploy.planning.architecture import Refusal, architecture_of, differences
from kimideploy.planning.exact import exact_shares
from kimideploy.planning.memory import stages, weight_shares
from kimideploy.planning.tensors import Tensor
from kimideploy.planning.types import Layout, Share, Summed
from kimideploy.planning.weighing import Calculated, Weighing


def weigh(
    tensors: Sequence[Tensor],
    layout: Layout,
    catalog: Catalog,
    *,
    place: str,
    revision: str | None,
    files: int,
    size: int,
    config: Mapping[str, Any] | None,
) -> Weighing:
    """Return what *tensors* take on the ranks of *layout*, beside what a plan counts with.

    The shape of the model is that of *config*, or of the profiles where there is none. Raises
    RequestError, with the field, for a config of another architecture, and for a layout with more
    stages than layers.
    """
    architecture, notes = _architecture(config, catalog)
    if layout.pp > architecture.layers:
        raise RequestError(f"--pp {layout.pp} is more stages than {architecture.layers} layers")
    if architecture.heads % layout.tp:
        raise RequestError(f"--tp {layout.tp} does not divide {architecture.heads} heads")
    exact = exact_shares(tensors, architecture, layout)
    return Weighing(
        place=place,
        revision=revision,
        files=files,
        size=size,
        layout=layout,
        exact=exact,
        calculated=_calculated(place, architecture, layout, catalog),
        notes=tuple(notes),
    )


def summed(found: Weighing) -> Summed:
    """Return what a plan keeps of *found*."""
    counted = None
    if found.calculated is not None:
        counted = max(sum(s.bytes for s in shares) for shares in found.calculated.stages)
    return Summed(
        place=found.place,
        revision=found.revision,
        tensors=found.exact.tensors,
        size=found.exact.bytes,
        fullest=max(max(stage.ranks) for stage in found.exact.stages),
        counted=counted,
    )


def _architecture(
    config: Mapping[str, Any] | None, catalog: Catalog
) -> tuple[Architecture, list[str]]:
    known = catalog.architectures
    if config is None:
        name, first = next(iter(known.items()))
        return first, [f"there is no config.json: the shape of {name} is taken"]
    found = architecture_of(config, known)
    if isinstance(found, Refusal):
        raise RequestError(
            f"config.json: {found.reason}",
            hint="kimideploy plans the Kimi K2 family; `kimideploy profiles list models` names it",
        )
    nearest = min(known.values(), key=lambda one: len(differences(found, one)))
    return found, [
        f"{field} is {mine:,}, the profiles' {theirs:,}"
        for field, mine, theirs in differences(found, nearest)
    ]


def _calculated(
    place: str, architecture: Architecture, layout: Layout, catalog: Catalog
) -> Calculated | None:
    """What the planner counts with, where a profile knows the repository and its format."""
    for model in catalog.models.values():
        for checkpoint in model.checkpoints:
            form = catalog.formats.get(checkpoint.format)
            if form is None or not _same(checkpoint, place):
                continue
            vision = int(model.vision.bytes) if model.vision is not None else 0
            split = stages(architecture, layout.pp)
            shares: list[tuple[Share, ...]] = [
                weight_shares(architecture, form, layout, stage, vision=vision) for stage in split
            ]
            return Calculated(checkpoint.id, tuple(shares))
    return None


def _same(checkpoint: Profiled, place: str) -> bool:
    """Whether *place* is the checkpoint's repository, or a folder of its name."""
    repo = checkpoint.repo
    if repo is None:
        return False
    return place == repo or place.rstrip("/").rpartition("/")[2] == repo.rpartition("/")[2]
