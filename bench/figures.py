"""Errors as figures: predictions beside measurements, and what is said of many of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: the share of unseen measurements that an error bar promises to hold
PROMISE = 0.8


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction beside its measurement; both in the unit of `kind`."""

    kind: str
    id: str
    source: str
    what: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a launch was predicted to start, and whether it did."""

    id: str
    what: str
    said: str
    starts: bool

    @property
    def right(self) -> bool:
        """Whether the prediction was right; tight counts as starting."""
        return (self.said != "no") == self.starts


@dataclass(frozen=True, slots=True)
class Bar:
    """The error bar of a row of `source`: what it is for, and its width in words."""

    kind: str
    width: str
    source: str


def errors(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the median and the ninth decile of the size of the errors."""
    sizes = [abs(pair.error) for pair in pairs]
    return statistics.median(sizes), quantile(sizes, 0.9)


def quantile(values: Sequence[float], share: float) -> float:
    """The least of *values* that *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def bar(values: Sequence[float], share: float = PROMISE) -> float:
    """The value that the next one does not exceed with a chance of *share*.

    That is the ⌈share · (n + 1)⌉-th of n (split conformal prediction): with few values it is
    wider than their own quantile, and the largest of them when they are too few to say.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered), math.ceil(share * (len(ordered) + 1) - 1e-9)) - 1]
