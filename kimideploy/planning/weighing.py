"""Weighing: a checkpoint summed tensor by tensor, beside what a plan counts with. Bytes."""

from __future__ import annotations

from kimideploy.facts.types import Strict
from kimideploy.planning.types import Layout, Share

WEIGHING_SCHEMA = "kimideploy.weighing/1"


class StageBytes(Strict, frozen=True):
    """One pipeline stage: its layers, the fullest rank's bytes by cause, every rank's sum."""

    first_layer: int
    layers: int
    shares: tuple[Share, ...]
    #: rank by rank, tp fastest
    ranks: tuple[int, ...]


class Unknown(Strict, frozen=True):
    """A tensor whose name says nothing to us; it is counted whole on every rank."""

    name: str
    bytes: int


class Exact(Strict, frozen=True):
    """The answer: bytes of all tensors, of each stage's ranks, and what did not add up."""

    tensors: int
    bytes: int
    stages: tuple[StageBytes, ...]
    unknown: tuple[Unknown, ...] = ()
    #: what the architecture has and the checkpoint has not, a sentence each
    lacks: tuple[str, ...] = ()


class Calculated(Strict, frozen=True):
    """What the planner counts with for the same layout: shares of each stage."""

    checkpoint: str
    stages: tuple[tuple[Share, ...], ...]


class Weighing(Strict, frozen=True):
    """A checkpoint's sums, and the planner's own where a profile knows it."""

    #: a repository or a folder
    place: str
    revision: str | None
    files: int
    #: of the files
    size: int
    layout: Layout
    exact: Exact
    calculated: Calculated | None = None
    notes: tuple[str, ...] = ()
    schema: str = WEIGHING_SCHEMA
