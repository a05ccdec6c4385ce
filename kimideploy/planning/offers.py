"""Offer, Outlay: a machine of one's own for a traffic, and what it costs beside the API.

USD a month, tokens a day (input and output together). A machine is rented whether it is busy or
not; what one machine can't take goes to a further one, or to the API where that is cheaper.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

from kimideploy.facts.types import Strict
from kimideploy.planning.cost import break_even
from kimideploy.planning.estimates import Range

Standing = Literal["cheaper", "close", "dearer", "unknown"]


class Offer(Strict, frozen=True):
    """One machine with the plan that `decide` made for it. None: what `unknown` says is missing."""

    hardware: str
    gpus: int
    tier: str
    plan: str
    #: whether the weights are those that were published, or their equal
    lossless: bool
    #: USD, one GPU
    gpu_hour: Range | None = None
    #: USD a month, one machine
    machine: Range | None = None
    #: tokens a day of the stated traffic, one machine at full load
    capacity: Range | None = None
    unknown: str | None = None


class Outlay(Strict, frozen=True):
    """What an offer costs a month for a traffic."""

    month: Range
    #: how many machines, at typical speed and price
    machines: int
    #: tokens a day that go to the API, as a further machine would cost more
    spilled: float


def outlay(offer: Offer, tokens: float, rate: float, *, spill: bool) -> Outlay | None:
    """Return what *tokens* a day cost on *offer*; None where its price or speed is unknown.

    *rate* is what the API takes in a month for one token each day; *spill* allows using it.
    """
    if offer.machine is None or offer.capacity is None:
        return None
    # Why crosswise: the dear end is a dear machine that is slow, the cheap end a cheap fast one.
    low, _ = _least(offer.machine.low, offer.capacity.high, tokens, rate, spill=spill)
    typical, count = _least(
        offer.machine.typical, offer.capacity.typical, tokens, rate, spill=spill
    )
    high, _ = _least(offer.machine.high, offer.capacity.low, tokens, rate, spill=spill)
    left = max(0.0, tokens - count * offer.capacity.typical) if spill else 0.0
    return Outlay(month=Range(low=low, typical=typical, high=high), machines=count, spilled=left)


def _least(
    machine: float, capacity: float, tokens: float, rate: float, *, spill: bool
) -> tuple[float, int]:
    """The cheapest mix of at least one machine and the API; its price and count of machines."""
    enough = max(1, ceil(tokens / capacity))
    counts = {1, max(1, enough - 1), enough} if spill else {enough}
    return min(
        (n * machine + (rate * max(0.0, tokens - n * capacity) if spill else 0.0), n)
        for n in counts
    )


def standing(cost: Outlay | None, api: float) -> Standing:
    """Return how *cost* compares with *api* USD a month, error bar and all."""
    if cost is None:
        return "unknown"
    if cost.month.high < api:
        return "cheaper"
    return "close" if cost.month.low < api else "dearer"


def pays(offer: Offer, rate: float) -> Range | None:
    """Return from how many tokens a day on one machine costs no more than the API, if ever."""
    return break_even(offer.machine, offer.capacity, rate) if offer.machine is not None else None


def full_load(offer: Offer) -> float | None:
    """Return USD a month for one token each day on one machine at full load, beside `rate`."""
    if offer.machine is None or offer.capacity is None:
        return None
    return offer.machine.typical / offer.capacity.typical
