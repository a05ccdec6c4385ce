"""How a bill is shown: what is paid for, what a million tokens cost, where it breaks even."""

from __future__ import annotations

from kimideploy.planning.bill import Bill, PerMillion
from kimideploy.planning.words import tokens, tokens_range, usd, usd_range
from kimideploy.views.speed import span
from kimideploy.views.terminal import Terminal

#: columns of the names on the left
_NAME = 12
#: rows of the curve, of the points there are
_ROWS = 9


def shown(bill: Bill, label: str, terminal: Terminal) -> str:
    """Return what `kimideploy cost` prints for the plan that *label* names."""
    head = terminal.wrapped(_verdict(bill), first="", rest="  ")
    lines = [terminal.paint(head[0], "bold"), *head[1:], ""]
    lines += _facts(bill, label, terminal)
    lines += ["", terminal.paint("USD per million tokens", "bold"), *_millions(bill)]
    lines += ["", terminal.paint("USD a month over traffic", "bold"), *_curve(bill, terminal)]
    lines += ["", terminal.paint("What decides it", "bold")]
    lines += [line for text in bill.dominated_by for line in terminal.wrapped(text, first="  - ")]
    return terminal.shown(lines)


def _verdict(bill: Bill) -> str:
    own, api = bill.machine_month, bill.api_month
    several = f"{bill.machines:,} machines" if bill.machines > 1 else "one machine"
    costs = f"{usd_range(own)} a month on {several}, {usd(api)} by the API"
    if own.high < api:
        word = "the machine is cheaper" if bill.machines == 1 else "machines are cheaper"
    elif own.low > api:
        word = "the API is cheaper"
    else:
        word = "too close to tell"
    return f"{word}: {costs}"


def _facts(bill: Bill, label: str, terminal: Terminal) -> list[str]:
    traffic, load = bill.traffic, bill.load
    even = bill.break_even
    users = "user" if load.concurrency == 1 else "users"
    cards = f"{bill.gpus} GPUs" if bill.gpus > 1 else "1 GPU"
    replicas = f", {bill.replicas} replicas" if bill.replicas > 1 else ""
    paid = "around the clock" if bill.paid_hours >= 24 else f"{bill.paid_hours:.1f} hours a day"  # noqa: PLR2004
    api = bill.api
    rows = {
        "Plan": f"{label}{replicas}",
        "Traffic": (
            f"{tokens(traffic.tokens_per_day)} tokens a day, {traffic.input_per_output:g} in for"
            f" each out, {traffic.cache_hit:.0%} of the input cached, over"
            f" {traffic.hours_per_day:g} hours, {traffic.depth:,} tokens deep"
        ),
        "Rent": (
            f"{usd_range(bill.machine_hour)} an hour for {cards}, {paid}; a GPU-hour is"
            f" {usd_range(bill.rent.gpu_hour)}: {bill.rent.basis}"
        ),
        "API": (
            f"{usd(api.input)} in, {usd(api.cached)} cached, {usd(api.output)} out per million"
            f" tokens: {api.provider}" + (f", {api.date}" if api.date else "")
        ),
        "Load": (
            f"{bill.busy:.0%} of what {'it takes' if bill.machines == 1 else 'they take'}:"
            f" {load.concurrency:,} {users} at once, {span(load.per_user)} tok/s each"
        ),
        "Capacity": (
            f"{tokens_range(bill.capacity)} tokens a day on one machine, with"
            f" {bill.full.concurrency:,} at once and {span(bill.full.per_user)} tok/s each"
        ),
        "Break-even": f"{tokens_range(even)} tokens a day"
        if even is not None
        else "never for this mix",
    }
    rest = " " * (_NAME + 2)
    return [
        line
        for name, text in rows.items()
        for line in terminal.wrapped(text, first=f"  {name:<{_NAME}}", rest=rest)
    ]


def _millions(bill: Bill) -> list[str]:
    rows: list[tuple[str, PerMillion]] = [
        (f"at {bill.busy:.0%} load", bill.per_million),
        ("always busy", bill.at_full_load),
    ]
    lines = [f"  {'':<14}{'input':>9}{'cached':>9}{'output':>9}   the mix"]
    api = bill.api
    for name, price in rows:
        each = "".join(
            f"{usd(part.typical):>9}" for part in (price.input, price.cached, price.output)
        )
        lines.append(f"  {name:<14}{each}   {usd_range(price.blended)}")
    each = "".join(f"{usd(price):>9}" for price in (api.input, api.cached, api.output))
    return [*lines, f"  {'API':<14}{each}   {usd(api.blended(bill.traffic))}"]


def _curve(bill: Bill, terminal: Terminal) -> list[str]:
    points = bill.curve
    step = (len(points) - 1) / (_ROWS - 1)
    lines = [f"  {'tokens a day':>12}{'API':>12}{'machines':>10}   USD on them"]
    for row in range(_ROWS):
        point = points[round(row * step)]
        own = usd_range(point.machine)
        if point.machine.high < point.api:
            own = terminal.paint(own, "green")
        text = f"{tokens(point.tokens_per_day):>12}{usd(point.api):>12}{point.machines:>10,}"
        lines.append(f"  {text}   {own}")
    return lines
