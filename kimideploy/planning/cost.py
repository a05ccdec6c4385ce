"""cost: a traffic, a plan's predicted speed and prices in, what it costs beside an API out.

One replica of the plan reads prompts and writes answers in turn, so a day of traffic takes it

    seconds = fresh input / prefill rate + output / decode rate at some concurrency,

where input that the prefix cache holds is counted as no work. USD; tokens a day are input and
output together; a month is 365/12 days.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from msgspec.structs import replace

from kimideploy.errors import RequestError
from kimideploy.planning.bill import Bill, CurvePoint, Load, PerMillion
from kimideploy.planning.depth import at_depth
from kimideploy.planning.estimates import Estimate, Range, Speed
from kimideploy.planning.traffic import ApiPrice, Rent, Traffic, check_prices, check_traffic
from kimideploy.planning.types import Plan
from kimideploy.planning.words import usd

DAYS = 365 / 12
MILLION = 1e6
_HOUR = 3600.0
_DAY = 24.0
#: points of the curve, and how far it goes beyond what is marked on it
_POINTS = 25
_BEYOND = 2.0


def rented(plan: Plan) -> int:
    """Return the GPUs of the machine that *plan* is for: those it does not use are paid, too.

    A machine without GPUs counts as one, so that a price is that of the machine.
    """
    kind = plan.candidate.gpu
    return max(1, sum(node.gpus for node in plan.inventory.nodes if node.gpu == kind))


def loads(traffic: Traffic, speed: Speed) -> tuple[Load, ...]:
    """Return one replica at each concurrency its KV cache holds, least first.

    Predictions are taken to the traffic's own depth, but no deeper than the deepest of them.
    Raises RequestError when nothing is predicted, or what is predicted is no speed.
    """
    rates = [speed.prefill, *(rate for p in speed.points for rate in (p.total, p.per_user))]
    # Why: a plan may be a file, and a file may say anything
    if not all(0 < rate.low <= rate.typical <= rate.high for rate in [*rates, speed.load]):
        raise RequestError("the plan's speed is none: each number needs 0 < low ≤ typical ≤ high")
    if not all(point.concurrency > 0 < point.context for point in speed.points):
        raise RequestError("the plan's speed is none: it is for no users or no tokens")
    if not speed.points:
        raise RequestError("no speed is predicted for this plan, so nothing is known of its cost")
    return tuple(_load(traffic, speed.prefill, p) for p in at_depth(speed.points, traffic.depth))


def best_load(traffic: Traffic, speed: Speed) -> Load:
    """Return the load at which one replica does most of *traffic*."""
    return max(loads(traffic, speed), key=lambda load: load.rate.typical)


def _load(traffic: Traffic, prefill: Range, point: Estimate) -> Load:
    def rate(end: str) -> float:
        seconds = traffic.fresh / getattr(prefill, end)
        return float(1 / (seconds + traffic.output / getattr(point.total, end)))

    busy = Range(low=rate("low"), typical=rate("typical"), high=rate("high"))
    reading = traffic.fresh / prefill.typical * busy.typical
    return Load(
        concurrency=point.concurrency,
        context=point.context,
        rate=busy,
        decode=point.total,
        # Why: while the prompts of others are read, nobody's answer goes on
        per_user=point.per_user.times(1 - reading),
        reading=reading,
        bound=point.bound,
    )


def capacity(traffic: Traffic, load: Load, replicas: int) -> Range:
    """Return tokens a day that *replicas* at *load* take in the traffic's hours."""
    return load.rate.times(traffic.hours_per_day * _HOUR * replicas)


def paid_hours(traffic: Traffic, speed: Speed, *, always: bool) -> float:
    """Return the hours a day a machine is paid for: its traffic's, and those of loading."""
    if always or traffic.hours_per_day >= _DAY:
        return _DAY
    return min(_DAY, traffic.hours_per_day + speed.load.typical / _HOUR)


def bill(
    traffic: Traffic, speed: Speed, *, gpus: int, replicas: int, rent: Rent, api: ApiPrice
) -> Bill:
    """Return what *traffic* costs on machines of *gpus* GPUs with *replicas* of a plan each.

    Raises RequestError for numbers that no traffic and no price has.
    """
    check_traffic(traffic)
    check_prices(rent.gpu_hour, api)
    if replicas < 1 or gpus < 1:
        raise RequestError(f"{replicas} copies of a plan on {gpus} GPUs serve nobody")
    every = loads(traffic, speed)
    full = max(every, key=lambda load: load.rate.typical)
    most = capacity(traffic, full, replicas)
    hours = paid_hours(traffic, speed, always=rent.always)
    hour = rent.gpu_hour.times(gpus)
    month = hour.times(hours * DAYS)
    day = traffic.tokens_per_day
    machines = _enough(day, most.typical)
    share = day / machines
    here = next((x for x in every if capacity(traffic, x, replicas).typical >= share), full)
    # Why crosswise: the dear end is a dear machine that is slow
    cost = Range(
        low=_enough(day, most.high) * month.low,
        typical=machines * month.typical,
        high=_enough(day, most.low) * month.high,
    )
    api_rate = api.blended(traffic) / MILLION * DAYS
    at_full = _per_million(speed, full, hour.times(MILLION / replicas / _HOUR))
    made = Bill(
        traffic=traffic,
        api=api,
        rent=rent,
        gpus=gpus,
        replicas=replicas,
        paid_hours=hours,
        machine_hour=hour,
        machines=machines,
        busy=share / most.typical,
        load=here,
        full=full,
        capacity=most,
        machine_month=cost,
        api_month=day * api_rate,
        per_million=_spread_over(at_full, cost.times(MILLION / (day * DAYS))),
        at_full_load=at_full,
        break_even=break_even(month, most, api_rate),
        curve=tuple(_curve(day, most, month, api_rate)),
    )
    return replace(made, dominated_by=tuple(_dominated(made)))


def break_even(month: Range, most: Range | None, api_rate: float) -> Range | None:
    """Return tokens a day from which on a machine costs what the API does, None for never.

    *month* is USD for one machine, *most* tokens a day it takes (None: unknown, so never),
    *api_rate* USD a month for one token each day. It is never when the machine, always busy, is
    the dearer one.
    """
    if most is None or api_rate <= 0 or month.typical / api_rate > most.typical:
        return None
    return month.times(1 / api_rate)


def _per_million(speed: Speed, load: Load, price: Range) -> PerMillion:
    """USD per million tokens on a replica that is always busy; *price* is of a million seconds."""
    return PerMillion(
        input=_over(price, speed.prefill),
        cached=Range(0.0, 0.0, 0.0),
        output=_over(price, load.decode),
        blended=_over(price, load.rate),
    )


def _spread_over(full: PerMillion, blended: Range) -> PerMillion:
    """Return prices in the proportions of *full* that come to *blended* for the mix."""

    def part(price: Range) -> Range:
        return blended.times(price.typical / full.blended.typical)

    return PerMillion(
        input=part(full.input),
        cached=part(full.cached),
        output=part(full.output),
        blended=blended,
    )


def _dominated(made: Bill) -> Iterator[str]:
    """Yield what decides a bill, a sentence each, the break-even first."""
    traffic, api, full, even = made.traffic, made.api, made.full, made.break_even
    blended = api.blended(traffic)
    if even is None:
        yield (
            "the machine never pays for this mix: always busy, a million tokens cost"
            f" {usd(made.at_full_load.blended.typical)} on it and {usd(blended)} by the API"
        )
    else:
        busy = even.typical / made.capacity.typical
        yield f"the rent: at the break-even a machine is {busy:.0%} busy, and idle time is paid for"
    parts = {
        "fresh input": api.input * traffic.fresh / blended,
        "cached input": api.cached * traffic.cached / blended,
        "output": api.output * traffic.output / blended,
    }
    shares = ", ".join(f"{name} {share:.0%}" for name, share in parts.items() if share > 0)
    yield f"of the API's bill: {shares}"
    yield (
        f"of a busy machine's time: reading prompts {full.reading:.0%}, answering"
        f" {1 - full.reading:.0%} (at {full.concurrency:,} users bound by {full.bound})"
    )
    price, rate = made.rent.gpu_hour, full.rate
    unsure = f"what the machine does, by a factor of {rate.high / rate.low:.2g} from end to end"
    if price.high > price.low:
        unsure += f", and the rent, by {price.high / price.low:.2g}"
    yield f"least sure: {unsure}"


def _curve(day: float, most: Range, month: Range, api_rate: float) -> Iterator[CurvePoint]:
    """Yield points in equal ratios around the traffic, the break-even and the capacity."""
    marks = [day, most.typical]
    if api_rate > 0:
        marks.append(month.typical / api_rate)
    low, high = min(marks) / _BEYOND, max(marks) * _BEYOND
    for number in range(_POINTS):
        tokens = low * (high / low) ** (number / (_POINTS - 1))
        yield CurvePoint(
            tokens_per_day=tokens,
            api=tokens * api_rate,
            machine=Range(
                low=_enough(tokens, most.high) * month.low,
                typical=_enough(tokens, most.typical) * month.typical,
                high=_enough(tokens, most.low) * month.high,
            ),
            machines=_enough(tokens, most.typical),
        )


def _enough(tokens: float, capacity: float) -> int:
    return max(1, ceil(tokens / capacity))


def _over(price: Range, rate: Range) -> Range:
    """Return *price* / *rate*, the dear end being the slow one."""
    return Range(
        low=price.low / rate.high, typical=price.typical / rate.typical, high=price.high / rate.low
    )
