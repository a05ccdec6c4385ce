"""Cost: bills worked out by hand, laws that hold for any traffic, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.planning.bill import Bill
from kimideploy.planning.cost import DAYS, best_load, bill, break_even, loads, paid_hours
from kimideploy.planning.depth import at_depth
from kimideploy.planning.estimates import Estimate, Range, Speed
from kimideploy.planning.traffic import (
    ApiPrice,
    Rent,
    Traffic,
    api_of,
    check_prices,
    check_traffic,
    rent_of,
)
from kimideploy.planning.words import usd

CATALOG = load_catalog()
API = ApiPrice(input=1.0, output=4.0, cached=0.2, provider="test")
RENT = Rent(Range(2.0, 3.0, 4.0), always=False, basis="test")


def flat(value: float) -> Range:
    """Return a range without an error bar."""
    return Range(value, value, value)


def point(users: int, context: int, total: float) -> Estimate:
    """Return a prediction whose error bar is a factor of 2."""
    return Estimate(
        concurrency=users,
        context=context,
        per_user=Range(total / users / 2, total / users, total / users * 2),
        total=Range(total / 2, total, total * 2),
        bound="experts",
    )


#: 1,000 tok/s of prompts; 100 tok/s at 1 user and 400 at 8, 32k deep
SPEED = Speed(
    points=(point(1, 2048, 200), point(1, 32_768, 100), point(8, 32_768, 400)),
    prefill=Range(500.0, 1000.0, 2000.0),
    prompt=8192,
    ttft=flat(1.0),
    load=flat(3600.0),
    load_network=flat(7200.0),
    basis="test",
)
#: of 10 tokens 4 are read, 4 come from the cache and 2 are written
TRAFFIC = Traffic(
    tokens_per_day=1e6, input_per_output=4.0, cache_hit=0.5, hours_per_day=24.0, depth=32_768
)


def billed(traffic: Traffic = TRAFFIC, rent: Rent = RENT, api: ApiPrice = API) -> Bill:
    """Return the bill on machines of 8 GPUs with one replica each."""
    return bill(traffic, SPEED, gpus=8, replicas=1, rent=rent, api=api)


def test_shares_of_the_traffic() -> None:
    """A token of the traffic is output, cached or fresh input, and nothing else."""
    assert pytest.approx((0.2, 0.4, 0.4)) == (TRAFFIC.output, TRAFFIC.cached, TRAFFIC.fresh)


def test_rate_is_reading_and_writing_in_turn() -> None:
    """At 8 users a token takes 0.4 / 1,000 s to read and 0.2 / 400 s to write."""
    load = best_load(TRAFFIC, SPEED)

    assert load.concurrency == 8
    assert pytest.approx(1 / (0.4 / 1000 + 0.2 / 400)) == load.rate.typical
    assert pytest.approx(1 / (0.4 / 500 + 0.2 / 200)) == load.rate.low
    assert pytest.approx(0.4 / 1000 * load.rate.typical) == load.reading
    assert pytest.approx(50 * (1 - load.reading)) == load.per_user.typical


def test_context_is_the_depth_of_the_traffic() -> None:
    """Shallow traffic is billed at the shallow prediction, too deep at the deepest."""
    assert {2048} == {x.context for x in loads(replace(TRAFFIC, depth=100), SPEED)}
    assert {20_000} == {x.context for x in loads(replace(TRAFFIC, depth=20_000), SPEED)}
    assert {32_768} == {x.context for x in loads(replace(TRAFFIC, depth=10**6), SPEED)}


def test_between_two_contexts_a_step_grows_with_the_tokens() -> None:
    """Halfway between 2k and 32k a step takes the mean of both, and 64 users do not fit."""
    points = (
        *(point(1, 2048, 100), point(4, 2048, 200), point(64, 2048, 1600)),
        *(point(1, 32_768, 80), point(4, 32_768, 100)),
    )
    half = at_depth(points, (2048 + 32_768) // 2)

    assert [1, 4] == [x.concurrency for x in half]
    assert pytest.approx((4 / 200 + 4 / 100) / 2) == 1 / half[1].per_user.typical
    assert pytest.approx(4 * half[1].per_user.typical) == half[1].total.typical
    assert at_depth(points, 2048) == points[:3]
    assert at_depth(points, 32_768) == points[3:]


def test_a_bill_by_hand() -> None:
    """One machine of 8 GPUs at $3 is $24 an hour; a million tokens a day cost $36.50 by API."""
    made = billed()

    assert made.machine_hour == Range(16.0, 24.0, 32.0)
    assert pytest.approx(24 * 24 * DAYS) == made.machine_month.typical
    # 0.4 × $1 + 0.4 × $0.2 + 0.2 × $4 = $1.28 for a million
    assert pytest.approx(1.28 * DAYS) == made.api_month
    assert made.machines == 1
    assert pytest.approx(1e6 / (made.full.rate.typical * 86_400)) == made.busy
    assert pytest.approx(24 * 24) == made.per_million.blended.typical
    assert made.load.concurrency == 1


def test_prices_of_each_kind_make_up_the_price_of_the_mix() -> None:
    """Fresh, cached and output tokens at their prices are the mix at its price."""
    for price in (billed().per_million, billed().at_full_load):
        parts = (
            price.input.typical * TRAFFIC.fresh
            + price.cached.typical * TRAFFIC.cached
            + price.output.typical * TRAFFIC.output
        )
        assert pytest.approx(price.blended.typical) == parts


def test_never_is_said_with_both_prices() -> None:
    """A machine that is dearer when always busy never pays, and the bill says by how much."""
    made = billed()

    assert made.break_even is None
    assert (
        "always busy, a million tokens cost $6.00 on it and $1.28 by the API"
        in (made.dominated_by[0])
    )


def test_break_even_is_where_both_cost_the_same() -> None:
    """At the break-even the API costs what one machine does."""
    made = billed(api=replace(API, output=100.0))

    assert made.break_even is not None
    there = billed(
        replace(TRAFFIC, tokens_per_day=made.break_even.typical), api=replace(API, output=100.0)
    )
    assert pytest.approx(there.machine_month.typical) == there.api_month


def test_hours_of_loading_are_paid() -> None:
    """Rented for 8 hours of traffic a machine is paid for 9; one of one's own for 24."""
    day = replace(TRAFFIC, hours_per_day=8.0)

    assert pytest.approx(9.0) == paid_hours(day, SPEED, always=False)
    assert pytest.approx(24.0) == paid_hours(day, SPEED, always=True)
    assert pytest.approx(24.0) == paid_hours(
        replace(TRAFFIC, hours_per_day=23.5), SPEED, always=False
    )


def test_more_than_one_machine() -> None:
    """What one machine can't take goes to further ones, each paid in full."""
    most = billed().capacity.typical
    made = billed(replace(TRAFFIC, tokens_per_day=2.5 * most))

    assert made.machines == 3
    assert pytest.approx(3 * billed().machine_month.typical) == made.machine_month.typical
    assert pytest.approx(2.5 / 3) == made.busy


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("tokens_per_day", 0.0, "--tokens-per-day"),
        ("tokens_per_day", math.nan, "--tokens-per-day"),
        ("tokens_per_day", 1e16, "--tokens-per-day"),
        ("input_per_output", -1.0, "--input-output"),
        ("input_per_output", math.inf, "--input-output"),
        ("cache_hit", 1.01, "--cache-hit"),
        ("hours_per_day", 25.0, "--hours-per-day"),
        ("hours_per_day", 0.0, "--hours-per-day"),
        ("depth", 0, "--depth"),
    ],
)
def test_traffic_that_is_none(field: str, value: float, flag: str) -> None:
    """Each number that no traffic has is refused with its flag."""
    with pytest.raises(RequestError, match=flag):
        check_traffic(replace(TRAFFIC, **{field: value}))


@pytest.mark.parametrize(
    ("rent", "api", "flag"),
    [
        (flat(0.0), API, "--gpu-price"),
        (flat(math.nan), API, "--gpu-price"),
        (Range(3.0, 2.5, 2.0), API, "--gpu-price"),
        (flat(1.0), replace(API, input=-1.0), "--api-price"),
        (flat(1.0), replace(API, output=math.inf), "--api-price"),
        (flat(1.0), replace(API, cached=1.5), "--api-price 1.5 for cached"),
    ],
)
def test_prices_that_are_none(rent: Range, api: ApiPrice, flag: str) -> None:
    """Each number that is no price is refused with its flag."""
    with pytest.raises(RequestError, match=flag):
        check_prices(rent, api)


def test_a_plan_without_a_speed_has_no_bill() -> None:
    """Nothing predicted is an error, and no division by nothing."""
    with pytest.raises(RequestError, match="no speed is predicted"):
        best_load(TRAFFIC, replace(SPEED, points=()))


@pytest.mark.parametrize(
    "speed",
    [
        replace(SPEED, prefill=flat(0.0)),
        replace(SPEED, prefill=Range(3.0, 2.0, 1.0)),
        replace(SPEED, load=flat(-1.0)),
        replace(SPEED, points=(replace(SPEED.points[0], concurrency=0),)),
        replace(SPEED, points=(replace(SPEED.points[0], total=flat(-5.0)),)),
    ],
)
def test_a_plan_file_that_lies_has_no_bill(speed: Speed) -> None:
    """Numbers that no prediction has are refused, not divided by."""
    with pytest.raises(RequestError, match="the plan's speed is none"):
        best_load(TRAFFIC, speed)


def test_no_copies_serve_nobody() -> None:
    """A plan file with no copies of its plan is refused."""
    with pytest.raises(RequestError, match="0 copies of a plan on 8 GPUs"):
        bill(TRAFFIC, SPEED, gpus=8, replicas=0, rent=RENT, api=API)


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0, "$0.00"),
        (3e-5, "under $0.0001"),
        (0.005, "$0.0050"),
        (4.2, "$4.20"),
        (20_850, "$20,850"),
    ],
)
def test_money_in_words(amount: float, said: str) -> None:
    """Dollars are told in cents, in whole ones from a hundred on, and never as nothing."""
    assert said == usd(amount)


def test_rents_of_the_profiles() -> None:
    """The median provider is typical; few providers give their ends, many their quartiles."""
    h200 = rent_of(CATALOG, "h200")
    b300 = rent_of(CATALOG, "b300")

    assert h200 is not None
    assert b300 is not None
    assert (b300.gpu_hour.low, b300.gpu_hour.high) == (6.0, 7.4)
    assert 3.59 < h200.gpu_hour.low < h200.gpu_hour.typical < h200.gpu_hour.high < 6.305
    assert "providers" in h200.basis
    assert rent_of(CATALOG, "rtx4090") is None
    assert rent_of(CATALOG, None) is None


def test_a_price_of_ones_own_comes_before_the_profiles() -> None:
    """What the user pays is what is counted with, for a card of no known price, too."""
    rent = rent_of(CATALOG, "rtx4090", said=flat(0.6))

    assert rent is not None
    assert (flat(0.6), False) == (rent.gpu_hour, rent.always)


def test_api_of_the_models_maker() -> None:
    """Moonshot's own price is the default, with its address and its day."""
    api = api_of(CATALOG, "Kimi-K2.7-Code")

    assert (0.95, 4.0, 0.19, "moonshotai") == (api.input, api.output, api.cached, api.provider)
    assert api.url is not None
    assert api.date == "2026-06-12"
    assert api_of(CATALOG, "kimi-k2.7-code", provider="deepinfra").input == 0.74
    assert api_of(CATALOG, "kimi-k2.7-code", prices=(1.0, 2.0)).cached == 1.0
    with pytest.raises(RequestError, match="nobody for kimi-k2"):
        api_of(CATALOG, "kimi-k2.7-code", provider="nobody")


traffics = st.builds(
    Traffic,
    tokens_per_day=st.floats(1, 1e13),
    input_per_output=st.floats(0, 1e4),
    cache_hit=st.floats(0, 1),
    hours_per_day=st.floats(0.1, 24),
    depth=st.integers(1, 1 << 20),
)
prices = st.floats(0.01, 100)
apis = st.builds(
    lambda fresh, output, share: ApiPrice(fresh, output, fresh * share, "test"),
    prices,
    prices,
    st.floats(0.01, 1),
)


@given(traffic=traffics, api=apis)
def test_bars_are_ordered_and_finite(traffic: Traffic, api: ApiPrice) -> None:
    """Whatever the traffic, every range is low ≤ typical ≤ high, and money is finite."""
    made = billed(traffic, api=api)
    price = made.per_million

    for value in (made.machine_month, made.capacity, made.full.rate, price.blended, price.output):
        assert 0 <= value.low <= value.typical <= value.high < math.inf
    assert 0 < made.busy <= 1 + 1e-9
    assert made.load.concurrency <= made.full.concurrency
    assert len(made.curve) == 25
    assert all(
        a.tokens_per_day < b.tokens_per_day and a.machine.typical <= b.machine.typical
        for a, b in zip(made.curve, made.curve[1:], strict=False)
    )


@given(month=prices, most=st.floats(1, 1e12), rate=st.floats(1e-9, 1), factor=st.floats(1, 1e3))
def test_a_dearer_api_never_delays_the_break_even(
    month: float, most: float, rate: float, factor: float
) -> None:
    """When the API gets dearer, a break-even that was there stays, and comes no later."""
    before = break_even(flat(month), flat(most), rate)
    after = break_even(flat(month), flat(most), rate * factor)

    if before is not None:
        assert after is not None
        assert after.typical <= before.typical * (1 + 1e-9)
        assert before.typical <= most
