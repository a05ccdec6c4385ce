"""Answers, Advice: what is asked before a recommendation, and the recommendation.

USD a month, tokens a day (input and output together).
"""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.types import Strict
from kimideploy.planning.estimates import Range
from kimideploy.planning.offers import Offer, Outlay, Standing
from kimideploy.planning.traffic import Traffic

ADVICE_SCHEMA = "kimideploy.advice/1"
Place = Literal["api", "self-host", "either"]
Answer = Literal["api", "self-host", "either", "other-model"]
#: requirement: no price changes it · money: what it costs · preference: tips an even balance
#: · note: it decides nothing, and says so
Weight = Literal["requirement", "money", "preference", "note"]


class Answers(Strict, frozen=True):
    """What the operator said; `assumed` names the questions that a default answered."""

    traffic: Traffic
    #: data must not leave the operator's own machines
    air_gapped: bool = False
    #: no machines of one's own, whatever they would save
    api_only: bool = False
    prototype: bool = False
    inspect_reasoning: bool = False
    non_thinking: bool = False
    images: bool = False
    benchmarks: bool = False
    #: USD a month
    monthly_budget: float | None = None
    #: hardware words; none: those of `profiles/advice.yaml`
    hardware: tuple[str, ...] = ()
    model: str = "kimi-k2.7-code"
    assumed: tuple[str, ...] = ()


class Fired(Strict, frozen=True):
    """A rule that applies: where it points and with which numbers; `decides` if it settled it."""

    rule: str
    points: Answer | None
    weight: Weight
    text: str
    decides: bool = False


class Compared(Strict, frozen=True):
    """An offer beside the API for the stated traffic."""

    offer: Offer
    standing: Standing
    cost: Outlay | None = None
    #: tokens a day from which on one machine costs no more; None: not at any traffic, or unknown
    break_even: Range | None = None


class Advice(Strict, frozen=True):
    """The recommendation: a model, where to run it, the rules behind it, what would change it."""

    answer: Answer
    model: str
    place: Place
    summary: str
    answers: Answers
    #: USD a month for the traffic by API
    api_month: float
    rules: tuple[Fired, ...]
    #: what would change the answer, in words
    changes: tuple[str, ...]
    #: the machine to take when hosting it oneself, also where the API is advised
    best: Compared | None
    #: every machine that was looked at, best first
    compared: tuple[Compared, ...]
    #: machines that no plan fits, in words
    left_out: tuple[str, ...] = ()
    #: what to run next; None where nothing is to be planned
    command: tuple[str, ...] | None = None
    #: models that were passed over, and why, in words
    other_models: tuple[str, ...] = ()
    schema: str = ADVICE_SCHEMA
