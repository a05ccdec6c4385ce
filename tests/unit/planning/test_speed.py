"""How fast plans are said to be: bars in order, loads the cache holds, the nearest measurement."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import Catalog
from kimideploy.facts.hardware import parse_hardware
from kimideploy.planning.decide import decide
from kimideploy.planning.estimates import Range, Speed
from kimideploy.planning.inventory import inventory_from_hardware
from kimideploy.planning.speed import machine_of
from kimideploy.planning.types import Plan, Request
from kimideploy.quantities import GIB

CATALOG = load_catalog()
WORDS = [
    "8xH200",
    "8xB200",
    "8xB300",
    "8xH20-96GB",
    "8xMI300X",
    "8xRTX-PRO-6000",
    "4xB200",
    "2x8xH100-80GB",
    "2x8xA100-80GB",
    "8xA100-80GB+1024GiB",
]


def plan_of(hardware: str, catalog: Catalog = CATALOG, **request: object) -> Plan:
    """Return the plan for a hardware word; a no fails the test."""
    inventory = inventory_from_hardware(parse_hardware(hardware), catalog, ram=2048 * GIB, numa=2)
    found = decide(Request(**request), inventory, catalog)  # type: ignore[arg-type]
    assert isinstance(found, Plan), getattr(found, "reason", "")
    return found


@cache
def planned(hardware: str) -> tuple[Plan, Speed]:
    """Return the plan for a hardware word, and its speed."""
    plan = plan_of(hardware)
    assert plan.speed is not None
    return plan, plan.speed


def ranges(speed: Speed) -> list[Range]:
    """Return every number with a bar."""
    points = [r for p in speed.points for r in (p.per_user, p.total)]
    return [*points, speed.prefill, speed.ttft, speed.load, speed.load_network]


@pytest.mark.parametrize("hardware", WORDS)
def test_bars_are_in_order(hardware: str) -> None:
    """Low is below typical is below high, and all of them are above nothing."""
    for number in ranges(planned(hardware)[1]):
        assert 0 < number.low < number.typical < number.high


@pytest.mark.parametrize("hardware", WORDS)
def test_points_are_loads_the_cache_holds(hardware: str) -> None:
    """No point has more tokens than the cache or a longer context than the plan, and none twice."""
    plan, speed = planned(hardware)

    assert speed.points
    for point in speed.points:
        assert point.concurrency * point.context <= plan.fit.kv_tokens
        assert point.context <= plan.fit.context
    assert len({(p.concurrency, p.context) for p in speed.points}) == len(speed.points)


@pytest.mark.parametrize("hardware", WORDS)
def test_the_sum_of_users_is_the_total(hardware: str) -> None:
    """What all users see together is the total."""
    for point in planned(hardware)[1].points:
        each = point.per_user.typical * point.concurrency
        assert point.total.typical == pytest.approx(each, rel=1e-3)


@pytest.mark.parametrize("hardware", WORDS)
def test_more_load_is_slower_for_each(hardware: str) -> None:
    """At the same context more users are slower each, and at the same users so are longer ones."""
    points = planned(hardware)[1].points
    for one in points:
        for other in points:
            if other.concurrency >= one.concurrency and other.context >= one.context:
                assert other.per_user.typical <= one.per_user.typical


def test_the_nearest_may_be_one_that_nothing_was_fitted_to() -> None:
    """MI355X is measured by unfitted rows alone; its prediction is for their load, with prompts
    read between the answers, and its bar stays that of a card nobody fitted to."""
    _, speed = planned("8xMI355X")
    assert speed.nearest is not None
    assert speed.nearest.id in {m.id for m in CATALOG.unfitted}
    assert "MI355X" in speed.nearest.what

    alike = next(e for e in speed.points if e.concurrency == 4 and e.context == 8192)
    assert speed.nearest.predicted is not None
    assert speed.nearest.predicted < alike.total.typical
    assert alike.total.high / alike.total.typical > 1.6


@pytest.mark.parametrize(
    ("hardware", "gpu"),
    [("8xH200", "H200"), ("8xB200", "B200"), ("8xMI300X", "MI300X"), ("8xRTX-PRO-6000", "RTX PRO")],
)
def test_the_nearest_is_of_the_same_gpu(hardware: str, gpu: str) -> None:
    """Where a GPU was measured, the measurement shown beside the numbers is of it."""
    plan, speed = planned(hardware)

    assert speed.nearest is not None
    assert gpu in speed.nearest.what
    assert plan.candidate.engine in speed.nearest.what
    assert speed.nearest.id in {m.id for m in (*CATALOG.measurements, *CATALOG.unfitted)}
    assert speed.nearest.url.startswith("https://")


def test_what_is_shown_as_nearest_was_measured() -> None:
    """The speed beside a prediction is the number its row prints."""
    _, speed = planned("8xH200")
    assert speed.nearest is not None
    (row,) = [m for m in CATALOG.measurements if m.id == speed.nearest.id]

    assert row.number("output_tok_s") == speed.nearest.value
    assert row.usable


@pytest.mark.parametrize(
    ("hardware", "standing", "basis"),
    [
        ("8xH200", "measured", "fitted to 5 measurements of vLLM on this GPU"),
        ("8xRTX-PRO-6000", "measured", "fitted to 239 measurements of vLLM on this GPU"),
        ("2x8xH100-80GB", "generation", "other set-ups of this GPU's generation"),
        ("2x8xA100-80GB", "scaled", "scaled by data sheet"),
        ("8xA100-80GB+1024GiB", "guess", "a guess"),
    ],
)
def test_the_bar_is_as_wide_as_the_evidence_is_far(
    hardware: str, standing: str, basis: str
) -> None:
    """Every point's bar is the one of its evidence, which is said in words."""
    _, speed = planned(hardware)
    factor = CATALOG.speed.spreads[standing].factor

    assert basis in speed.basis
    for point in speed.points:
        assert point.per_user.high / point.per_user.typical == pytest.approx(factor, rel=2e-3)
        assert point.per_user.typical / point.per_user.low == pytest.approx(factor, rel=2e-3)


def test_prefill_has_no_narrower_bar_than_what_is_scaled() -> None:
    """Prefill on vLLM was not measured, so even on a measured GPU its bar is a wider one."""
    _, speed = planned("8xH200")

    assert speed.prefill.high / speed.prefill.typical == pytest.approx(
        CATALOG.speed.spreads["scaled"].factor, rel=2e-3
    )


def test_a_gpu_nobody_measured_has_a_wider_bar() -> None:
    """The same card, without its measurements, is predicted alike with a wider bar."""
    rows = tuple(m for m in CATALOG.measurements if m.gpu != "h200")
    catalog = msgspec.structs.replace(CATALOG, measurements=rows, unfitted=())
    blind = plan_of("8xH200", catalog).speed
    _, seen = planned("8xH200")
    assert blind is not None

    one, other = seen.points[0].per_user, blind.points[0].per_user
    assert one.typical == other.typical
    assert other.low < one.low
    assert other.high > one.high
    assert blind.nearest is None or "H200" not in blind.nearest.what


def test_no_data_sheet_no_speed() -> None:
    """A GPU whose bandwidth nobody wrote down has no machine to time, and a plan has no speed."""
    h200 = CATALOG.gpus["h200"]
    for unknown in (
        msgspec.structs.replace(h200, bandwidth=None),
        msgspec.structs.replace(h200, compute=None),
    ):
        catalog = msgspec.structs.replace(CATALOG, gpus={**CATALOG.gpus, "h200": unknown})
        assert machine_of(unknown, "vllm") is None
        assert plan_of("8xH200", catalog).speed is None


def test_a_draft_is_faster_for_one_user() -> None:
    """A draft model shows in the numbers of a lone user."""
    drafting = plan_of("8xH200", draft=True).speed
    _, without = planned("8xH200")
    assert drafting is not None

    assert drafting.points[0].per_user.typical > without.points[0].per_user.typical
    assert drafting.points[0].concurrency == without.points[0].concurrency == 1
