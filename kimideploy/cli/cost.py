"""`kimideploy cost`: what a traffic costs on the machine of a plan, beside the API."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.options import JsonOpt, PlanOptions, takes
from kimideploy.cli.traffic import TrafficOptions

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.planning.bill import Bill
    from kimideploy.planning.types import Decision, Plan

EXAMPLES = [
    "kimideploy cost --hardware 8xH200 --tokens-per-day 500M",
    "kimideploy cost --hardware 8xH200 --tokens-per-day 2B --terms spot",
    "kimideploy cost --plan plan.json --gpu-price 2.10-3.40 --api-price deepinfra",
    "kimideploy cost --hardware 1xRTX4090+768GiB --gpu-price 0.60",
]


@takes(PlanOptions)
@takes(TrafficOptions, name="traffic")
def cost(
    *,
    options: PlanOptions,
    traffic: TrafficOptions,
    plan: Annotated[
        str | None, typer.Option("--plan", help="a file of `plan --json`; - is stdin")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Say what a traffic costs on a machine of your own, and by the API.

    Machines are rented at the prices of `profiles/prices.yaml`, or at yours, and as fast as
    predicted: every number has its range. The exit code is 1 when nothing fits.
    """
    from kimideploy.planning.types import NoFit, encode  # noqa: PLC0415

    traffic.traffic()
    decision, catalog = decided(options, plan)
    if isinstance(decision, NoFit):
        from kimideploy.views.plan import shown as shown_plan  # noqa: PLC0415
        from kimideploy.views.terminal import terminal  # noqa: PLC0415

        sys.stdout.write(
            encode(decision).decode() if as_json else shown_plan(decision, terminal(sys.stdout))
        )
        raise typer.Exit(1)
    made = billed(decision, traffic, catalog)
    if as_json:
        sys.stdout.write(encode(made).decode())
        return
    from kimideploy.views.cost import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    sys.stdout.write(shown(made, decision.candidate.label, terminal(sys.stdout)))


def decided(options: PlanOptions, plan: str | None) -> tuple[Decision, Catalog]:
    """Return the saved *plan*, or the decision that *options* lead to, and the profiles."""
    if plan is None:
        from kimideploy.cli.plan import decide_from_options  # noqa: PLC0415

        return decide_from_options(options)
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.saved import nothing_else, saved  # noqa: PLC0415

    nothing_else(options, plan)
    return saved(plan), load_catalog(user_overlays(options.profiles or ()))


def billed(plan: Plan, traffic: TrafficOptions, catalog: Catalog) -> Bill:
    """Return what the traffic costs on machines like the one that *plan* is for.

    Raises RequestError where a price or the speed is not known, or where a number can't be meant.
    """
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.cost import bill, rented  # noqa: PLC0415

    if plan.speed is None:
        raise RequestError("no speed is predicted for this plan, so nothing is known of its cost")
    return bill(
        traffic.traffic(),
        plan.speed,
        gpus=rented(plan),
        replicas=plan.copies,
        rent=traffic.rent(catalog, plan.candidate.gpu),
        api=traffic.api(catalog, plan.request.model),
    )
