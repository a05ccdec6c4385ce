"""The section of a report that says what a traffic costs, and where machine and API meet."""

from __future__ import annotations

from kimideploy.planning.bill import Bill
from kimideploy.planning.words import tokens, tokens_range, usd, usd_range
from kimideploy.views.charts import Axis, Mark, Point, Series, curves
from kimideploy.views.figures import Chart, Column, Section

_TITLE = "Break-even with the API"


def cost_section(cost: Bill | str) -> Section:
    """Return the break-even curve of a bill, or the sentence that says why there is none."""
    if isinstance(cost, str):
        return Section("cost", _TITLE, (cost,) if cost else ())
    traffic, api, even = cost.traffic, cost.api, cost.break_even
    where = "never, for this mix" if even is None else f"from {tokens_range(even)} tokens a day on"
    lines = (
        f"A machine of {cost.gpus} GPUs costs no more than the API: {where}.",
        (
            f"The traffic has {traffic.input_per_output:g} input tokens for each output token,"
            f" {traffic.cache_hit:.0%} of the input comes from the cache, it comes over"
            f" {traffic.hours_per_day:g} hours a day, its sequences are {traffic.depth:,} tokens"
            " deep."
        ),
        (
            f"A GPU-hour is {usd_range(cost.rent.gpu_hour)} ({cost.rent.basis}), so the machine is"
            f" {usd_range(cost.machine_hour)} an hour. The API takes {usd(api.input)} for a million"
            f" input tokens, {usd(api.cached)} for cached ones and {usd(api.output)} for output"
            f" ({api.provider}{f', {api.date}' if api.date else ''})."
        ),
        *(f"{text[0].upper()}{text[1:]}." for text in cost.dominated_by),
    )
    return Section("cost", _TITLE, lines, (_curve(cost),))


def _curve(cost: Bill) -> Chart:
    points = cost.curve
    api = tuple(
        Point(p.tokens_per_day, p.api, p.api, p.api, _said(p.tokens_per_day, usd(p.api)))
        for p in points
    )
    own = tuple(
        Point(
            p.tokens_per_day,
            p.machine.typical,
            p.machine.low,
            p.machine.high,
            _said(p.tokens_per_day, usd_range(p.machine)),
        )
        for p in points
    )
    mark = Mark(cost.capacity.typical, "one machine is full")
    if cost.break_even is not None:
        mark = Mark(cost.break_even.typical, "break-even")
    return Chart(
        title="USD a month over traffic",
        svg=curves(
            "cost",
            "USD a month over tokens a day, by the API and on machines",
            f"By API from {api[0].title} to {api[-1].title}; on machines from {own[0].title} to"
            f" {own[-1].title}.",
            series=[Series("API", api), Series("machines like this one", own)],
            x=Axis("tokens a day", log=True, shown=tokens),
            y=Axis("USD a month", log=True, shown=tokens),
            marks=[mark],
        ),
        columns=(
            Column("Tokens a day"),
            Column("API"),
            Column("Machines"),
            Column("USD on them"),
            Column("Low"),
            Column("High"),
        ),
        rows=tuple(
            (
                tokens(p.tokens_per_day),
                usd(p.api),
                f"{p.machines:,}",
                usd(p.machine.typical),
                usd(p.machine.low),
                usd(p.machine.high),
            )
            for p in points
        ),
        notes=(
            (
                "The band is the range of rents and of predicted speed; a step is one machine more."
                " Both axes are logarithmic."
            ),
        ),
    )


def _said(day: float, money: str) -> str:
    return f"{tokens(day)} a day: {money}"
