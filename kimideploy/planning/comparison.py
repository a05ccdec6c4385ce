"""Comparison: two decisions side by side, as `plan compare` shows and writes it."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict
from kimideploy.planning.bill import Bill
from kimideploy.planning.estimates import Range
from kimideploy.planning.types import Decision

COMPARISON_SCHEMA = "kimideploy.comparison/1"
Better = Literal["a", "b", "same", "close", "unknown"]


class Measure(Strict, frozen=True):
    """One number of both; `close` when each lies within the other's error bar."""

    name: str
    unit: str
    a: Range | None
    b: Range | None
    better: Better
    #: how many times better the better one is, where that is more than nothing
    ratio: float | None = None


class Side(Strict, frozen=True):
    """One decision and what it was made for; `bill` where prices are known."""

    name: str
    decision: Decision
    bill: Bill | None = None


class Comparison(Strict, frozen=True):
    """Two decisions, the numbers they share, and the verdict in sentences."""

    a: Side
    b: Side
    measures: tuple[Measure, ...]
    verdict: tuple[str, ...]
    schema: str = COMPARISON_SCHEMA
