"""The machines that are weighed: each planned, priced, and timed for the traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kimideploy.catalog.types import Catalog, Model
from kimideploy.facts.hardware import parse_hardware
from kimideploy.planning.cost import DAYS, best_load, capacity, paid_hours, rented
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_hardware
from kimideploy.planning.offers import Offer
from kimideploy.planning.traffic import Rent, Traffic
from kimideploy.planning.types import NoFit, Plan, Request

#: a GPU's rent by its profile's id, None where it is not known
Rents = Callable[[str | None], Rent | None]


def machines(
    words: Sequence[str], model: Model, traffic: Traffic, catalog: Catalog, rents: Rents
) -> tuple[list[Offer], list[str]]:
    """Return an offer for each hardware word that holds *model*, and why the others don't.

    Raises RequestError for a word that names no hardware.
    """
    offers, left_out = [], []
    for word in dict.fromkeys(words):
        inventory = inventory_from_hardware(parse_hardware(word), catalog)
        decision = decide(Request(model=model.id), inventory, catalog)
        if isinstance(decision, NoFit):
            left_out.append(f"{word} does not hold it: {decision.reason}")
        else:
            offers.append(_offer(word, decision, model, traffic, rents(decision.candidate.gpu)))
    return offers, left_out


def _offer(word: str, plan: Plan, model: Model, traffic: Traffic, rent: Rent | None) -> Offer:
    c, speed = plan.candidate, plan.speed
    checkpoint = next(one for one in model.checkpoints if one.id == c.checkpoint)
    month, tokens = None, None
    hours = 24.0
    if speed is not None and speed.points:
        tokens = capacity(traffic, best_load(traffic, speed), plan.copies)
    if rent is not None:
        if speed is not None:
            hours = paid_hours(traffic, speed, always=rent.always)
        month = rent.gpu_hour.times(rented(plan) * hours * DAYS)
    unknown = [
        text
        for text, value in (("its price is not known", month), ("its speed is not known", tokens))
        if value is None
    ]
    return Offer(
        hardware=word,
        gpus=rented(plan),
        tier=c.tier,
        plan=c.label,
        lossless=checkpoint.lossless,
        gpu_hour=rent.gpu_hour if rent is not None else None,
        machine=month,
        capacity=tokens,
        unknown=" and ".join(unknown) or None,
    )
