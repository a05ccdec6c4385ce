"""advise: answers and profiles in, a recommendation out; a function of its arguments.

First which model, then where it runs. What must be so comes before money, money before what is
merely liked, and a rule of thumb decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

from kimideploy.catalog.find import find_model
from kimideploy.catalog.types import Catalog
from kimideploy.errors import RequestError
from kimideploy.planning.advice import Advice, Answer, Answers, Compared, Fired, Place
from kimideploy.planning.advise_machines import Rents, machines
from kimideploy.planning.advise_models import choose_model
from kimideploy.planning.advise_rules import NOTES, PLACE, RANK, Api, Case, money, soonest
from kimideploy.planning.cost import DAYS, MILLION
from kimideploy.planning.offers import Offer, full_load, outlay, pays, standing
from kimideploy.planning.traffic import ApiPrice, check_traffic
from kimideploy.planning.types import Request
from kimideploy.planning.words import tokens_range, usd


def check(answers: Answers) -> None:
    """Raise RequestError that names the questions whose answers can't be true together."""
    if answers.air_gapped and answers.api_only:
        raise RequestError(
            "--air-gapped and --api-only contradict each other: an API is what data leaves by",
            hint="kimideploy advise --air-gapped",
        )
    if answers.api_only and answers.hardware:
        raise RequestError(
            "--api-only and --hardware contradict each other: one of them rules out the machine",
            hint="leave one of them out",
        )
    if answers.non_thinking and answers.inspect_reasoning:
        raise RequestError(
            "--non-thinking and --inspect-reasoning contradict each other:"
            " what does not think has no reasoning to show",
            hint="leave one of them out",
        )
    budget = answers.monthly_budget
    if budget is not None and not (isfinite(budget) and 0 < budget <= 1e9):  # noqa: PLR2004
        raise RequestError(f"--monthly-budget {budget:g} is no number of dollars a month")


def advise(
    answers: Answers, catalog: Catalog, *, rents: Rents, price: Callable[[str], ApiPrice]
) -> Advice:
    """Return the advice for *answers*: which model, where it runs, why, and what would change it.

    *rents* and *price* say what a GPU-hour and a model's API cost. Raises RequestError for
    answers that can't be true together and for hardware that no word of ours names.
    """
    check(answers)
    check_traffic(answers.traffic)
    model, _, _ = choose_model(answers, catalog)
    api = price(model.id)
    million = api.blended(answers.traffic)
    rate = million / MILLION * DAYS
    found, left_out = machines(
        answers.hardware or catalog.advice.hardware, model, answers.traffic, catalog, rents
    )
    known = Api(month=answers.traffic.tokens_per_day * rate, million=million, rate=rate)
    return weigh(answers, catalog, found, known, left_out=left_out)


def weigh(
    answers: Answers,
    catalog: Catalog,
    offers: Sequence[Offer],
    api: Api,
    *,
    left_out: Sequence[str] = (),
) -> Advice:
    """Return the advice for priced *offers* of the model that `choose_model` returns."""
    check(answers)
    model, fired, others = choose_model(answers, catalog)
    case = Case(answers, model, api, _compared(answers, offers, api), catalog)
    place, rules = _place(case)
    answer: Answer = "other-model" if model.id != answers.model else place
    # Why: with nothing of one's own allowed there is nothing to plan.
    plans = place != "api" and case.best is not None
    return Advice(
        answer=answer,
        model=model.id,
        place=place,
        summary=_summary(case, place, answer),
        answers=answers,
        api_month=api.month,
        rules=(*fired, *rules),
        changes=tuple(_changes(case, place)),
        best=case.best,
        compared=case.compared,
        left_out=tuple(left_out),
        command=_command(case) if plans else None,
        other_models=tuple(others),
    )


def _compared(answers: Answers, offers: Sequence[Offer], api: Api) -> tuple[Compared, ...]:
    """Each offer beside the API, best first; weights that lost something come last."""
    day = answers.traffic.tokens_per_day
    found = []
    for offer in offers:
        cost = outlay(offer, day, api.rate, spill=not answers.air_gapped)
        even = pays(offer, api.rate)
        found.append(Compared(offer, standing(cost, api.month), cost=cost, break_even=even))

    def order(item: Compared) -> tuple[bool, bool, int, float, str]:
        price = item.cost.month.typical if item.cost is not None else 0.0
        rank = 0 if answers.air_gapped else RANK[item.standing]
        return item.cost is None, not item.offer.lossless, rank, price, item.offer.hardware

    return tuple(sorted(found, key=order))


def _place(case: Case) -> tuple[Place, list[Fired]]:
    """The first rule that settles it wins; the rest are told all the same."""
    place: Place = "either"
    rules: list[Fired] = []
    settled = False
    for rule in PLACE:
        fired = rule(case)
        if fired is None:
            continue
        points = fired.points
        if not settled and (points == "api" or points == "self-host"):  # noqa: PLR1714
            place, settled = points, True
            fired = _deciding(fired)
        rules.append(fired)
    if not settled:
        rules = [_deciding(f) if f.rule == "money" else f for f in rules]
    rules += [f for rule in NOTES if (f := rule(case)) is not None]
    return place, rules


def _deciding(fired: Fired) -> Fired:
    return Fired(fired.rule, fired.points, fired.weight, fired.text, decides=True)


def _changes(case: Case, place: Place) -> list[str]:
    """What would have to be otherwise for another answer."""
    answers, best = case.answers, case.best
    found = []
    if case.model.id != answers.model:
        wanted = case.catalog.models[find_model(case.catalog, answers.model).id]
        found.append(f"without what rules it out it would be {wanted.name}")
    if answers.air_gapped or answers.api_only:
        word = "data may leave" if answers.air_gapped else "machines of your own are allowed"
        found.append(f"if {word}, cost decides: {money(case).text}")
    item = soonest(case.compared)
    if item is not None and item.break_even is not None:
        even, where = item.break_even, item.offer.hardware
        if place == "self-host":
            found.append(f"below {tokens_range(even)} tokens a day the API is cheaper")
        else:
            text = f"from {tokens_range(even)} tokens a day on, {where} is cheaper"
            found.append(f"{text} than the API")
    elif best is not None and best.offer.capacity is not None and place != "self-host":
        found += _never(case)
    price = _gpu_price(case)
    if price is not None and place != "self-host":
        found.append(price)
    return found


def _never(case: Case) -> list[str]:
    full = [(load, c) for c in case.compared if (load := full_load(c.offer)) is not None]
    if not full:
        return []
    load, item = min(full, key=lambda pair: pair[0])
    own = load / case.api.rate * case.api.million
    text = (
        f"more traffic alone does not: a million tokens cost {usd(own)} on a fully busy"
        f" {item.offer.hardware} and {usd(case.api.million)} by API"
    )
    return [text]


def _gpu_price(case: Case) -> str | None:
    """The rent at which the best machine would cost what the API does for this traffic."""
    best = case.best
    if best is None or best.cost is None:
        return None
    offer, machines = best.offer, best.cost.machines
    if offer.machine is None or offer.gpu_hour is None or offer.gpu_hour.typical <= 0:
        return None
    gpu_hours = offer.machine.typical / offer.gpu_hour.typical
    taken = min(case.answers.traffic.tokens_per_day, machines * _capacity(offer))
    price = usd(taken * case.api.rate / machines / gpu_hours)
    return f"below {price} a GPU-hour {offer.hardware} is cheaper at this traffic"


def _capacity(offer: Offer) -> float:
    return offer.capacity.typical if offer.capacity is not None else 0.0


def _summary(case: Case, place: Place, answer: Answer) -> str:
    best = case.best
    if best is None:
        own = "run it yourself, though no machine that was tried holds it"
    else:
        several = best.cost is not None and best.cost.machines > 1
        count = f"{best.cost.machines} × " if several and best.cost is not None else ""
        own = f"run it yourself on {count}{best.offer.hardware} (tier {best.offer.tier})"
    what = {"api": "use the API", "self-host": own}
    text = what.get(
        place, f"either will do: use the API, or {own}; the costs are too close to tell"
    )
    if answer == "other-model":
        return (
            f"take {case.model.name}, and {text}"
            if place != "either"
            else (f"take {case.model.name}; {text}")
        )
    return f"{case.model.name}: {text}"


def _command(case: Case) -> tuple[str, ...] | None:
    best = case.best
    if best is None:
        return None
    words = ["kimideploy", "plan", "--hardware", best.offer.hardware]
    if case.model.id != Request().model:
        words += ["--model", case.model.id]
    return tuple(words)
