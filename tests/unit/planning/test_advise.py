"""Advice: one row for each rule and for each order of two, and what more traffic can't undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.planning.advice import Advice, Answers
from kimideploy.planning.advise import check, weigh
from kimideploy.planning.advise_models import choose_model
from kimideploy.planning.advise_rules import Api
from kimideploy.planning.estimates import Range
from kimideploy.planning.offers import Offer, outlay, pays, standing
from kimideploy.planning.traffic import Traffic
from kimideploy.planning.words import tokens, usd

CATALOG = load_catalog()
#: USD per million tokens, and USD a month for one token each day
MILLION, RATE = 1.0, 30 / 1e6
#: a machine for $20,000 a month that does 2 to 3 billion tokens a day
BIG = Offer(
    hardware="8xH200",
    gpus=8,
    tier="int4-h200",
    plan="int4 · vllm",
    lossless=True,
    gpu_hour=Range(low=3.0, typical=3.5, high=4.0),
    machine=Range(low=18_000.0, typical=20_000.0, high=24_000.0),
    capacity=Range(low=2e9, typical=2.5e9, high=3e9),
)
#: one that is cheap, and too slow to pay at any traffic
SMALL = Offer(
    hardware="8xA100-80GB",
    gpus=8,
    tier="gguf-lossless",
    plan="gguf · llamacpp",
    lossless=True,
    machine=Range(low=8_000.0, typical=9_000.0, high=10_000.0),
    capacity=Range(low=5e6, typical=1e7, high=2e7),
)
LOSSY = Offer(
    hardware="1xRTX4090+384GiB",
    gpus=1,
    tier="gguf-2bit",
    plan="gguf · llamacpp",
    lossless=False,
    machine=Range(low=100.0, typical=200.0, high=300.0),
    capacity=Range(low=4e7, typical=5e7, high=6e7),
)
UNPRICED = Offer(
    hardware="1xRTX4090+768GiB",
    gpus=1,
    tier="gguf-4bit",
    plan="gguf · llamacpp",
    lossless=True,
    unknown="no price is known",
)
UNTIMED = replace(BIG, capacity=None, unknown="its speed is not known")
OFFERS = (BIG, SMALL)


def advised(day: float, offers: Sequence[Offer] = OFFERS, **said: Any) -> Advice:
    """Return the advice for *day* tokens and what else was said."""
    traffic = Traffic(tokens_per_day=day, input_per_output=8.0, cache_hit=0.5, hours_per_day=24.0)
    answers = Answers(traffic=traffic, **said)
    api = Api(month=day * RATE, million=MILLION, rate=RATE)
    return weigh(answers, CATALOG, offers, api)


@dataclass(frozen=True)
class Row:
    """What is said, and what must come of it."""

    name: str
    day: float
    answer: str
    decides: tuple[str, ...]
    said: dict[str, Any] = field(default_factory=dict)
    offers: tuple[Offer, ...] = OFFERS
    model: str = "kimi-k2.7-code"
    place: str | None = None
    hardware: str | None = None


LOW, EVEN, HIGH = 1e5, 7e8, 1.5e9
ROWS = (
    # one row for each rule
    Row("low volume", LOW, "api", ("money",)),
    Row("inside the error bar", EVEN, "either", ("money",)),
    Row("high volume", HIGH, "self-host", ("money",), hardware="8xH200"),
    Row("air-gapped", LOW, "self-host", ("air-gapped",), {"air_gapped": True}),
    Row("api only", HIGH, "api", ("api-only",), {"api_only": True}),
    Row("prototype", EVEN, "api", ("prototype",), {"prototype": True}),
    Row("budget for the API only", EVEN, "api", ("budget",), {"monthly_budget": 2.1e4},
        offers=(replace(BIG, machine=Range(low=2e4, typical=2.2e4, high=2.4e4)),)),
    Row("budget for a machine only", EVEN, "self-host", ("budget",), {"monthly_budget": 20_500.0}),
    Row("budget for neither", LOW, "api", ("budget",), {"monthly_budget": 1.0}),
    Row("budget for both", HIGH, "self-host", ("money",), {"monthly_budget": 1e6}),
    Row("images", LOW, "api", ("money",), {"images": True}),
    Row("inspect the reasoning", LOW, "api", ("money",), {"inspect_reasoning": True}),
    Row("non-thinking", LOW, "other-model", ("non-thinking", "money"), {"non_thinking": True},
        model="kimi-k2.6", place="api"),
    Row("benchmarks", LOW, "other-model", ("benchmarks", "money"), {"benchmarks": True},
        model="kimi-k2.5", place="api"),
    Row("images, asked of one that is blind", LOW, "other-model", ("images", "money"),
        {"images": True, "model": "kimi-k2-thinking"}, model="kimi-k2.7-code", place="api"),
    # one row for each order of two
    Row("air-gapped before money", LOW, "self-host", ("air-gapped",),
        {"air_gapped": True}, hardware="8xA100-80GB"),
    Row("air-gapped before budget", LOW, "self-host", ("air-gapped",),
        {"air_gapped": True, "monthly_budget": 10.0}),
    Row("air-gapped before prototype", LOW, "self-host", ("air-gapped",),
        {"air_gapped": True, "prototype": True}),
    Row("api only before budget", HIGH, "api", ("api-only",),
        {"api_only": True, "monthly_budget": 21_000.0}),
    Row("budget before money", HIGH, "self-host", ("budget",), {"monthly_budget": 21_000.0}),
    Row("money before prototype", HIGH, "self-host", ("money",), {"prototype": True}),
    Row("non-thinking, then air-gapped", LOW, "other-model", ("non-thinking", "air-gapped"),
        {"non_thinking": True, "air_gapped": True}, model="kimi-k2.6", place="self-host"),
    Row("non-thinking, then money", HIGH, "other-model", ("non-thinking", "money"),
        {"non_thinking": True}, model="kimi-k2.6", place="self-host", hardware="8xH200"),
    Row("non-thinking before benchmarks", LOW, "other-model",
        ("non-thinking", "benchmarks", "money"), {"non_thinking": True, "benchmarks": True},
        model="kimi-k2.5", place="api"),
    Row("images before benchmarks", LOW, "other-model", ("benchmarks", "money"),
        {"images": True, "benchmarks": True}, model="kimi-k2.5", place="api"),
    # what is not known, and what lost something
    Row("no machine holds it", HIGH, "api", ("money",), offers=()),
    Row("a machine without a price", HIGH, "either", ("money",), offers=(UNPRICED,)),
    Row("a speed that is not known", HIGH, "either", ("money",), offers=(UNTIMED,)),
    Row("dearer at any speed", LOW, "api", ("money",), offers=(UNTIMED,)),
    Row("published weights before cheaper ones", LOW, "self-host", ("air-gapped",),
        {"air_gapped": True}, offers=(LOSSY, SMALL), hardware="8xA100-80GB"),
    Row("cheaper ones where nothing else is there", LOW, "self-host", ("air-gapped",),
        {"air_gapped": True}, offers=(LOSSY,), hardware="1xRTX4090+384GiB"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rule_and_precedence(row: Row) -> None:
    """Each row's answer, model, place and deciding rules are what the matrix says."""
    advice = advised(row.day, row.offers, **row.said)

    assert row.answer == advice.answer
    assert row.model == advice.model
    assert (row.place or row.answer) == advice.place
    assert row.decides == tuple(fired.rule for fired in advice.rules if fired.decides)
    if row.hardware is not None:
        assert advice.best is not None
        assert row.hardware == advice.best.offer.hardware


def test_every_rule_has_a_row() -> None:
    """The rows together fire every rule there is, and each says something in words."""
    fired = [f for row in ROWS for f in advised(row.day, row.offers, **row.said).rules]

    names = {"air-gapped", "api-only", "budget", "money", "prototype", "inspect-reasoning"}
    names |= {"volume", "spend", "images", "non-thinking", "benchmarks"}
    assert names == {f.rule for f in fired}
    assert [] == [f for f in fired if len(f.text.split()) < 5 or f.text.endswith(".")]


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({"air_gapped": True, "api_only": True}, ("--air-gapped", "--api-only")),
        ({"api_only": True, "hardware": ("8xH200",)}, ("--api-only", "--hardware")),
        ({"non_thinking": True, "inspect_reasoning": True}, ("--non-thinking", "--inspect")),
        ({"monthly_budget": -1.0}, ("--monthly-budget",)),
        ({"monthly_budget": 0.0}, ("--monthly-budget",)),
        ({"monthly_budget": float("nan")}, ("--monthly-budget",)),
        ({"monthly_budget": float("inf")}, ("--monthly-budget",)),
    ],
)
def test_contradictions_are_refused(said: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Answers that can't be true together are a wrong request that names both."""
    with pytest.raises(RequestError) as refused:
        advised(LOW, **said)

    assert [] == [name for name in fields if name not in refused.value.message]


def test_rules_of_thumb_stand_beside_the_computed_numbers() -> None:
    """The quoted 100K tokens a day and $200 a month are contradicted in plain numbers."""
    rules = {fired.rule: fired for fired in advised(LOW).rules}

    assert "100K tokens a day" in rules["volume"].text
    assert "667M on 8xH200, 6,667 times as much" in rules["volume"].text
    assert "8xA100-80GB, is $9,000 a month: $200 does not pay for it" in rules["spend"].text
    assert ("api", "api") == (rules["volume"].points, rules["spend"].points)


def test_what_would_change_the_answer() -> None:
    """A break-even is named from both sides, and a machine that never pays says so."""
    below, above = advised(LOW), advised(HIGH)
    never = advised(LOW, (SMALL,))

    assert (
        "from 667M (600M … 800M) tokens a day on, 8xH200 is cheaper than the API" in below.changes
    )
    assert "below 667M (600M … 800M) tokens a day the API is cheaper" in above.changes
    assert any("$30.00 on a fully busy 8xA100-80GB and $1.00 by API" in c for c in never.changes)


def test_rent_that_would_change_the_answer() -> None:
    """At the rent that is named, the machine costs what the API does for this traffic."""
    advice = advised(EVEN / 7, (BIG,))

    # 100M tokens a day cost $3,000; 20,000 / 3.50 GPU-hours a month are 5,714
    assert f"below {usd(3000 / (20_000 / 3.5))} a GPU-hour 8xH200 is cheaper" in advice.changes[1]


def test_command_plans_what_is_advised() -> None:
    """The next command names the machine, and the model where it is another one."""
    assert ("kimideploy", "plan", "--hardware", "8xH200") == advised(HIGH).command
    assert advised(HIGH, non_thinking=True).command == (
        *("kimideploy", "plan", "--hardware", "8xH200"),
        *("--model", "kimi-k2.6"),
    )
    assert advised(LOW).command is None


def test_a_further_machine_or_the_api_takes_the_rest() -> None:
    """What one machine can't take goes where it is cheaper, and air-gapped to machines alone."""
    little = outlay(BIG, 2.6e9, RATE, spill=True)
    much = outlay(BIG, 4.9e9, RATE, spill=True)
    alone = outlay(BIG, 2.6e9, RATE, spill=False)

    assert little is not None
    assert much is not None
    assert alone is not None
    assert little.machines == 1
    assert pytest.approx(1e8) == little.spilled
    assert pytest.approx(23_000) == little.month.typical
    assert (2, 0.0) == (much.machines, much.spilled)
    assert (2, 0.0, 40_000) == (alone.machines, alone.spilled, alone.month.typical)


def test_a_machine_that_is_too_slow_never_pays() -> None:
    """A break-even beyond what the machine can do is none."""
    assert pays(SMALL, RATE) is None
    even = pays(BIG, RATE)
    assert even is not None
    assert pytest.approx((6e8, 2e4 / RATE, 8e8)) == (even.low, even.typical, even.high)


def test_models_that_are_passed_over_say_why() -> None:
    """Each other model is named with what it lacks."""
    model, _, others = choose_model(answers(non_thinking=True, images=True), CATALOG)

    assert "kimi-k2.6" == model.id
    assert "Kimi K2.7-Code: it always thinks" in others
    assert any(text.startswith("Kimi K2.5 (2026-01-27): does what") for text in others)


def test_benchmarks_name_who_measured() -> None:
    """The rule shows each figure, who ran it, and the day of the one that counts."""
    (fired,) = (f for f in advised(LOW, benchmarks=True).rules if f.rule == "benchmarks")

    assert "SWE-bench Verified 70.8 %, run by others" in fired.text
    assert "SWE-bench Verified 80.2 %, its vendor" in fired.text
    assert "(2026-02-17)" in fired.text


def answers(**said: Any) -> Answers:
    """Return answers for little traffic."""
    traffic = Traffic(tokens_per_day=LOW, input_per_output=8.0, cache_hit=0.5, hours_per_day=24.0)
    return Answers(traffic=traffic, **said)


def test_contradictions_are_seen_before_any_plan() -> None:
    """`check` alone refuses, so that nothing is planned for a request that can't be meant."""
    with pytest.raises(RequestError):
        check(answers(air_gapped=True, api_only=True))


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "1"), (999, "999"), (12_345, "12.3K"), (999_600, "1M"), (34e6, "34M"), (1.25e9, "1.25B")],
)
def test_tokens_in_words(count: float, said: str) -> None:
    """Tokens are said in three digits and the largest unit."""
    assert said == tokens(count)


amounts = st.floats(min_value=1, max_value=1e7)
ranges = st.builds(lambda values: Range(*sorted(values)), st.tuples(amounts, amounts, amounts))
made = st.builds(
    lambda machine, capacity, hardware, lossless: replace(
        BIG,
        machine=machine,
        capacity=Range(*(x * 1e3 for x in (capacity.low, capacity.typical, capacity.high))),
        hardware=hardware,
        lossless=lossless,
    ),
    ranges,
    ranges,
    st.sampled_from(["a", "b", "c"]),
    st.booleans(),
)


@given(
    offers=st.lists(made, min_size=1, max_size=4),
    days=st.tuples(st.floats(1, 1e12), st.floats(1, 1e12)).map(sorted),
    prototype=st.booleans(),
    budget=st.none() | amounts,
)
def test_more_traffic_never_brings_the_api_back(
    offers: list[Offer], days: list[float], prototype: bool, budget: float | None
) -> None:
    """Where it is worth hosting it oneself, more tokens a day do not make the API the answer."""
    said: dict[str, Any] = {"prototype": prototype, "monthly_budget": budget}
    less, more = (advised(day, offers, **said).place for day in days)

    assert not ("self-host" == less and "api" == more)


@given(offer=made, day=st.floats(1, 1e12), spill=st.booleans())
def test_outlay_is_ordered(offer: Offer, day: float, spill: bool) -> None:
    """The error bar of a cost holds what is typical, and with the API to help it costs no more."""
    cost = outlay(offer, day, RATE, spill=spill)
    alone = outlay(offer, day, RATE, spill=False)

    assert cost is not None
    assert alone is not None
    assert cost.month.low <= cost.month.typical <= cost.month.high
    assert cost.month.typical <= alone.month.typical * (1 + 1e-9)
    assert standing(cost, cost.month.high * 2) == "cheaper"
