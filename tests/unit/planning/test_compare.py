"""Comparisons: who is better, by how much, and when nobody can tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.planning.compare import _better, compare
from kimideploy.planning.comparison import Measure, Side
from kimideploy.planning.estimates import Range
from tests.unit.planning.test_decide import planned


def side(hardware: str, **request: object) -> Side:
    """Return the decision for a hardware word, without prices."""
    return Side(hardware, planned(hardware, **request))


def measures(a: Side, b: Side) -> dict[str, Measure]:
    """Return the numbers of both by name."""
    return {measure.name: measure for measure in compare(a, b).measures}


@pytest.mark.parametrize(
    ("x", "y", "high_is_good", "better", "ratio"),
    [
        (Range(9, 10, 11), Range(19, 20, 21), True, "b", 2.0),
        (Range(9, 10, 11), Range(19, 20, 21), False, "a", 2.0),
        (Range(5, 10, 20), Range(6, 12, 24), True, "close", None),
        (Range(5, 10, 20), Range(14, 15, 16), True, "b", 1.5),
        (Range(3, 3, 3), Range(3, 3, 3), True, "same", None),
        (None, Range(3, 3, 3), True, "unknown", None),
    ],
)
def test_better(
    x: Range | None, y: Range | None, high_is_good: bool, better: str, ratio: float | None
) -> None:
    """Better is what lies outside the other's bar; each inside the other's is too close."""
    assert (better, ratio) == _better(x, y, high_is_good=high_is_good)


values = st.floats(0.1, 1e6)
bars = st.tuples(values, values, values).map(lambda found: Range(*sorted(found)))


@given(x=bars, y=bars, high_is_good=st.booleans())
def test_sides_are_alike(x: Range, y: Range, high_is_good: bool) -> None:
    """Who is better does not depend on who stands left."""
    turned = {"a": "b", "b": "a"}
    one, ratio = _better(x, y, high_is_good=high_is_good)
    two, other = _better(y, x, high_is_good=high_is_good)

    assert (turned.get(one, one), ratio) == (two, other)
    assert ratio is None or ratio >= 1


def test_more_memory_holds_more() -> None:
    """8 × B300 hold more than 8 × H200, and the verdict says how much."""
    found = compare(side("8xH200"), side("8xB300"))
    cache = {measure.name: measure for measure in found.measures}["KV cache"]

    assert "b" == cache.better
    assert cache.ratio is not None
    assert cache.ratio > 2
    assert any(text.startswith("8xB300 is better at: KV cache") for text in found.verdict)


def test_a_plan_beside_itself() -> None:
    """Nothing tells a machine from itself."""
    found = compare(side("8xH200"), side("8xH200"))

    assert {"same"} == {measure.better for measure in found.measures}
    assert ("no number tells them apart",) == found.verdict


def test_one_that_does_not_fit() -> None:
    """What does not hold the model has no numbers, and loses."""
    found = compare(side("1xRTX4090"), side("8xH200"))

    assert found.verdict == ("only 8xH200 holds the model, 1xRTX4090 does not",)
    assert {"unknown"} == {measure.better for measure in found.measures}
    assert ("neither holds the model",) == compare(side("1xRTX4090"), side("1xA6000")).verdict


def test_prices_only_where_they_are_known() -> None:
    """Without bills there is no row of money."""
    assert not {"an hour", "1M tokens"} & set(measures(side("8xH200"), side("8xB300")))
