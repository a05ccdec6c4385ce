"""The rules that say where a model runs: each looks at a case, and says what it has to say.

A rule returns None where it does not apply. What it points to may be overruled by one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kimideploy.catalog.types import Catalog, Model
from kimideploy.planning.advice import Answers, Compared, Fired, Place
from kimideploy.planning.offers import Offer
from kimideploy.planning.words import tokens, usd, usd_range

#: how an offer stands beside the API, best first
RANK = {"cheaper": 0, "close": 1, "dearer": 2, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Api:
    """What the API costs for the stated traffic."""

    #: USD a month
    month: float
    #: USD per million tokens, input and output together
    million: float
    #: USD a month for one token each day
    rate: float


@dataclass(frozen=True, slots=True)
class Case:
    """Everything the rules look at."""

    answers: Answers
    model: Model
    api: Api
    #: best first
    compared: tuple[Compared, ...]
    catalog: Catalog

    @property
    def best(self) -> Compared | None:
        """The machine to take when one hosts it oneself."""
        return self.compared[0] if self.compared else None


def air_gapped(case: Case) -> Fired | None:
    if not case.answers.air_gapped:
        return None
    text = f"data must not leave, so no API; the licence ({case.model.license}) allows your own"
    return Fired("air-gapped", "self-host", "requirement", text)


def api_only(case: Case) -> Fired | None:
    if not case.answers.api_only:
        return None
    return Fired("api-only", "api", "requirement", "machines of your own are ruled out")


def budget(case: Case) -> Fired | None:
    most = case.answers.monthly_budget
    if most is None:
        return None
    best = min(
        (item for item in case.compared if item.cost is not None),
        key=lambda item: item.cost.month.typical if item.cost is not None else 0.0,
        default=None,
    )
    own = best.cost.month.typical if best is not None and best.cost is not None else None
    hosted = f"{usd(own)} on your own machine" if own is not None else "an unknown sum of your own"
    both = f"{usd(case.api.month)} by API, {hosted}"
    fits_api = case.api.month <= most
    fits_own = own is not None and own <= most
    if fits_api and fits_own:
        return Fired("budget", None, "requirement", f"{usd(most)} a month pays either: {both}")
    if fits_api or fits_own:
        points: Place = "api" if fits_api else "self-host"
        text = f"{usd(most)} a month pays for one of them only: {both}"
        return Fired("budget", points, "requirement", text)
    cheaper: Place = "self-host" if own is not None and own < case.api.month else "api"
    text = f"{usd(most)} a month pays for neither: {both}; the cheaper one is taken"
    return Fired("budget", cheaper, "requirement", text)


def money(case: Case) -> Fired:
    best = case.best
    day = tokens(case.answers.traffic.tokens_per_day)
    api = f"{day} tokens a day cost {usd(case.api.month)} a month by API"
    if best is None:
        return Fired("money", "api", "money", f"{api}; no machine that was tried holds the model")
    if best.cost is None:
        machine = best.offer.machine
        if machine is not None and machine.low > case.api.month:
            text = f"{api}; {best.offer.hardware} costs {usd_range(machine)} before it does a thing"
            return Fired("money", "api", "money", text)
        return Fired("money", "either", "money", f"{api}; {best.offer.unknown}")
    count = f"{best.cost.machines} × " if best.cost.machines > 1 else ""
    own = f"{usd_range(best.cost.month)} on {count}{best.offer.hardware}"
    if best.cost.spilled > 0:
        own += f" with {tokens(best.cost.spilled)} a day left to the API"
    points: dict[str, Place] = {"cheaper": "self-host", "close": "either", "dearer": "api"}
    # Why not `best`: an air-gapped one is ordered by price, and need not be the best standing.
    standings = {item.standing for item in case.compared if item.offer.lossless} or {best.standing}
    first = min(standings, key=RANK.__getitem__)
    text = f"{api}, {own}"
    if first == "close":
        text += ": each lies inside the other's error bar"
    return Fired("money", points.get(first, "either"), "money", text)


def prototype(case: Case) -> Fired | None:
    if not case.answers.prototype:
        return None
    text = "a prototype is best not tied to a machine: the API is paid by use and ends when it does"
    return Fired("prototype", "api", "preference", text)


def inspect(case: Case) -> Fired | None:
    if not case.answers.inspect_reasoning:
        return None
    fields = "; ".join(
        f"{engine.name} as `{engine.reasoning_field}`" for engine in case.catalog.engines.values()
    )
    text = (
        "the reasoning can be read and kept either way: the API sends it as `reasoning_content`,"
        f" {fields}. It decides nothing; whichever it is, hand it back with every turn"
    )
    return Fired("inspect-reasoning", "either", "note", text)


def volume(case: Case) -> Fired:
    """The quoted number of tokens a day beside the computed one."""
    quoted = case.catalog.advice.rules_of_thumb.tokens_per_day
    day = case.answers.traffic.tokens_per_day
    said = f"a rule of thumb has {tokens(quoted)} tokens a day as where self-hosting begins"
    mine = f"yours are {tokens(day)}"
    item = soonest(case.compared)
    if item is None or item.break_even is None:
        text = f"{said} ({mine}); by these prices no machine that was tried pays at any volume"
        return Fired("volume", "api", "note", text)
    even = item.break_even.typical
    text = f"{said} ({mine}); worked out it is {tokens(even)} on {item.offer.hardware}"
    if even > 2 * quoted:
        text += f", {even / quoted:,.0f} times as much"
    return Fired("volume", "self-host" if day >= even else "api", "note", text)


def spend(case: Case) -> Fired:
    """The quoted API bill beside what a machine costs."""
    quoted = case.catalog.advice.rules_of_thumb.usd_per_month
    said = f"a rule of thumb has {usd(quoted)} a month of API use as where it may pay"
    mine = f"yours is {usd(case.api.month)}"
    priced = [c.offer for c in case.compared if c.offer.machine is not None and c.offer.lossless]
    cheapest = min(priced, key=_machine, default=None)
    if cheapest is None:
        return Fired("spend", None, "note", f"{said} ({mine}); no machine here has a known price")
    month = _machine(cheapest)
    text = f"{said} ({mine}); the cheapest machine, {cheapest.hardware}, is {usd(month)} a month"
    if month > quoted:
        text += f": {usd(quoted)} does not pay for it"
    return Fired("spend", "self-host" if case.api.month >= month else "api", "note", text)


def _machine(offer: Offer) -> float:
    return offer.machine.typical if offer.machine is not None else float("inf")


def soonest(compared: Sequence[Compared]) -> Compared | None:
    """Return the offer that pays from the fewest tokens a day on; None when none ever does."""
    paying = [c for c in compared if c.break_even is not None and c.offer.lossless]
    paying = paying or [c for c in compared if c.break_even is not None]
    return min(
        paying, key=lambda c: c.break_even.typical if c.break_even is not None else 0, default=None
    )


#: those that settle the place, the first that points to one wins
PLACE: tuple[Callable[[Case], Fired | None], ...] = (
    air_gapped,
    api_only,
    budget,
    money,
    prototype,
)
#: those that decide nothing and say so
NOTES: tuple[Callable[[Case], Fired | None], ...] = (inspect, volume, spend)
