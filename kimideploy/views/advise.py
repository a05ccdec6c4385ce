"""How advice is shown: the answer, the costs, the rules behind it, what would change it."""

from __future__ import annotations

import shlex

from kimideploy.planning.advice import Advice, Compared, Fired
from kimideploy.planning.words import tokens, usd, usd_range
from kimideploy.views.terminal import Style, Terminal

_COLOURS: dict[str, Style] = {
    "api": "cyan",
    "self-host": "green",
    "either": "yellow",
    "other-model": "magenta",
}
#: columns of a machine's name
_NAME = 19


def shown(advice: Advice, terminal: Terminal) -> str:
    """Return what `kimideploy advise` prints."""
    head = terminal.wrapped(f"{advice.answer}: {advice.summary}", first="", rest="  ")
    colour = _COLOURS[advice.answer]
    word = f"{advice.answer}:"
    head[0] = head[0].replace(word, terminal.paint(word, "bold", colour), 1)
    lines = [*head, *_traffic(advice, terminal), *_costs(advice, terminal)]
    lines += ["", terminal.paint("Rules", "bold") + ", the one that decides is marked >"]
    for fired in advice.rules:
        lines += _rule(fired, terminal)
    lines += _points("What would change it", advice.changes, terminal)
    lines += _points("Other models", advice.other_models, terminal)
    lines += _points("Taken as the default, as nothing was said", advice.answers.assumed, terminal)
    if advice.command is not None:
        lines += ["", terminal.paint("Next", "bold")]
        lines.append(terminal.paint(f"  {shlex.join(advice.command)}", "cyan"))
    return terminal.shown(lines)


def _traffic(advice: Advice, terminal: Terminal) -> list[str]:
    traffic = advice.answers.traffic
    text = (
        f"{tokens(traffic.tokens_per_day)} tokens a day, {traffic.input_per_output:g} in for each"
        f" out, {traffic.cache_hit:.0%} of the input cached, over {traffic.hours_per_day:g} hours"
    )
    return terminal.wrapped(text, first="  Traffic  ")


def _costs(advice: Advice, terminal: Terminal) -> list[str]:
    lines = ["", terminal.paint("USD a month for this traffic", "bold")]
    lines.append(f"  {'API':<{_NAME}} {usd(advice.api_month)}")
    for item in advice.compared:
        lines += _machine(item, terminal)
    for text in advice.left_out:
        lines += terminal.wrapped(text, first="  - ")
    return lines


def _machine(item: Compared, terminal: Terminal) -> list[str]:
    offer, cost = item.offer, item.cost
    if cost is None:
        text = offer.unknown or "its cost is unknown"
    else:
        text = usd_range(cost.month)
        if cost.machines > 1:
            text += f" for {cost.machines:,}"
        if cost.spilled > 0:
            text += f", {tokens(cost.spilled)} a day by API"
        even = item.break_even
        text += f"; pays from {tokens(even.typical)} a day" if even is not None else "; never pays"
    first = f"  {offer.hardware:<{_NAME}} "
    return terminal.wrapped(f"{text} · {offer.tier}", first=first, rest=" " * (_NAME + 3))


def _rule(fired: Fired, terminal: Terminal) -> list[str]:
    mark = ">" if fired.decides else "-"
    points = f" -> {fired.points}" if fired.points is not None else ""
    lines = terminal.wrapped(f"{fired.rule}{points}: {fired.text}", first=f"  {mark} ")
    if fired.decides:
        lines[0] = lines[0].replace(fired.rule, terminal.paint(fired.rule, "bold"), 1)
    return lines


def _points(title: str, texts: tuple[str, ...], terminal: Terminal) -> list[str]:
    lines = [line for text in texts for line in terminal.wrapped(text, first="  - ")]
    return ["", terminal.paint(title, "bold"), *lines] if lines else []
