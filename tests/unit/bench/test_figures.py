"""Figures of many errors, on examples that can be counted on fingers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Pair, Verdict, bar, errors, quantile


def pairs(*predicted: float) -> list[Pair]:
    """Return predictions of measurements that are all 100."""
    return [Pair("decode", f"T{n}", "source", "", 100, value) for n, value in enumerate(predicted)]


def test_error_has_a_sign() -> None:
    """Half of what was measured is -50 %, twice is +100 %."""
    assert [pair.error for pair in pairs(50, 100, 200)] == [-0.5, 0, 1]


def test_median_and_ninth_decile() -> None:
    """Of ten errors the median lies between the middle two and the ninth decile is the ninth."""
    middle, most = errors(pairs(101, 98, 103, 96, 105, 94, 107, 92, 109, 10))

    assert middle == pytest.approx(0.055)
    assert most == pytest.approx(0.09)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4), (0.01, 1)])
def test_quantile(share: float, value: int) -> None:
    """A quantile is the least of the values that as many do not exceed."""
    assert value == quantile([4, 1, 3, 2], share)


@pytest.mark.parametrize(("count", "place"), [(4, 4), (9, 8), (10, 9), (18, 16), (239, 192)])
def test_bar_is_wider_for_few(count: int, place: int) -> None:
    """Four of five of the next ones lie within the ⌈0.8 · (n + 1)⌉-th of n."""
    assert place == bar(list(range(count, 0, -1)))


def test_bar_of_too_few_is_their_largest() -> None:
    """Three values can't say what four of five are: the bar is the largest there is."""
    assert bar([1, 5, 3]) == 5


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_bar_holds_what_it_promises(values: list[float]) -> None:
    """The bar holds at least four of five of the values it was made of."""
    width = bar(values)

    assert sum(value <= width for value in values) >= 0.8 * len(values)
    assert quantile(values, 0.8) <= width


def test_bar_holds_unseen_values() -> None:
    """A bar of twenty values holds four of five of the next ones, over many tries."""
    dice = random.Random(7)
    held = 0
    for _ in range(5000):
        values = [dice.gauss(0, 1) ** 2 for _ in range(20)]
        held += dice.gauss(0, 1) ** 2 <= bar(values)

    assert 0.79 < held / 5000 < 0.84


@pytest.mark.parametrize(
    ("said", "starts", "right"),
    [("yes", True, True), ("tight", True, True), ("no", False, True), ("tight", False, False)],
)
def test_verdict(said: str, starts: bool, right: bool) -> None:
    """Tight counts as starting; a launch that ran out of memory must be a no."""
    assert right == Verdict("M1", "", said, starts).right
