"""How predicted speed is shown: a few lines in a plan, and a table of contexts and users."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kimideploy.planning.estimates import DEPTH, Estimate, Nearest, Range, Speed
from kimideploy.planning.types import Plan
from kimideploy.planning.words import tokens
from kimideploy.views.terminal import Terminal

_KIB = 1024
_NAME = 9
#: columns of one cell, and of the users before them
_CELL, _USERS = 12, 7
_MINUTE = 60.0


def lines(speed: Speed | None, terminal: Terminal) -> list[str]:
    """Return what a plan says of its speed, with every error bar."""
    head = ["", terminal.paint("Speed, predicted, with the range four of five fall in", "bold")]
    if speed is None:
        return [*head, *terminal.wrapped("nothing is known of this GPU's speed")]
    rows = [*_decoding(speed.points)]
    rows.append(("Prompts", f"{span(speed.prefill)} tok/s read"))
    first = f"{span(speed.ttft)} s to the first token of {speed.prompt:,}, on an idle server"
    rows.append(("", first))
    local, network = span(_minutes(speed.load)), span(_minutes(speed.load_network))
    rows.append(("Loading", f"{local} min from a local disk, {network} over a network"))
    rows.append(("Basis", speed.basis))
    found = [
        line
        for name, text in rows
        for line in terminal.wrapped(text, first=f"  {name:<{_NAME}} ", rest=" " * (_NAME + 3))
    ]
    return [*head, *found, *_nearest(speed.nearest, terminal)]


def _minutes(value: Range) -> Range:
    return value.times(1 / _MINUTE)


def _decoding(points: Sequence[Estimate]) -> list[tuple[str, str]]:
    contexts = sorted({point.context for point in points})
    if not contexts:
        return []
    depth = max((c for c in contexts if c <= DEPTH), default=contexts[0])
    there = [point for point in points if point.context == depth]
    one, most = there[0], there[-1]
    where = f"{size(depth)} tokens deep"
    rows = [(users(one.concurrency), f"{span(one.per_user)} tok/s, {where}")]
    if most is not one:
        each = f"{span(most.per_user)} tok/s each, {span(most.total)} in all"
        rows.append((users(most.concurrency), f"{each}: the most that fit so deep"))
    return rows


def _nearest(nearest: Nearest | None, terminal: Terminal) -> list[str]:
    if nearest is None:
        return []
    here = f", where {rate(nearest.predicted)} are predicted here" if nearest.predicted else ""
    text = f"{nearest.value:,.0f} tok/s over all users{here}: {nearest.what} ({nearest.date})"
    measured = terminal.wrapped(text, first=f"  {'Measured':<{_NAME}} ", rest=" " * (_NAME + 3))
    return [*measured, terminal.paint(f"{'':<{_NAME + 3}}{nearest.url}", "dim")]


def table(plan: Plan, terminal: Terminal) -> str:
    """Return what `kimideploy plan --curve` prints: speed over users and contexts."""
    if plan.speed is None:
        return terminal.shown(["nothing is known of this GPU's speed"])
    head = terminal.paint(f"{plan.served_name}: {plan.candidate.label}", "bold")
    return f"{head}\n\n{curve(plan.speed, plan.fit.context, terminal)}"


def curve(speed: Speed, context: int, terminal: Terminal) -> str:
    """Return the tables of *speed* over users and contexts, up to *context* tokens deep."""
    points = {(point.concurrency, point.context): point for point in speed.points}
    contexts = sorted({point.context for point in speed.points})
    if not contexts:
        return terminal.shown(["no speed is predicted for this plan"])
    every = sorted({point.concurrency for point in speed.points})
    most = {c: max(u for u, depth in points if depth == c) for c in contexts}
    odd = set(most.values()) - _powers(every[-1])
    rows = [count for count in every if count not in odd]
    factor = _factor(speed.points[0].per_user)
    found: list[str] = []
    for title, value in _TABLES:
        found += [*([""] if found else []), terminal.paint(title, "bold")]
        heads = "".join(f"{size(c) + ' deep':>{_CELL}}" for c in contexts)
        found.append(f"{'users':>{_USERS}}{heads}")
        for count in rows:
            cells = [_cell(points.get((count, c)), value) for c in contexts]
            found.append(f"{count:>{_USERS},}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
        cells = [f"{most[c]:,}: {rate(value(points[most[c], c]).typical)}" for c in contexts]
        found.append(f"{'most':>{_USERS}}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
    note = (
        f"full: the KV cache does not hold so many. Four of five measurements fall between these"
        f" numbers / {factor:.2g} and × {factor:.2g}; {speed.basis}."
    )
    limit = f"A request may be {context:,} tokens long."
    return terminal.shown([*found, "", *terminal.wrapped(f"{note} {limit}", first="")])


_TABLES: tuple[tuple[str, Callable[[Estimate], Range]], ...] = (
    ("Output tok/s of each user", lambda point: point.per_user),
    ("Output tok/s of all users", lambda point: point.total),
)


def _cell(point: Estimate | None, value: Callable[[Estimate], Range]) -> str:
    return rate(value(point).typical) if point is not None else "full"


def _powers(most: int) -> set[int]:
    return {1 << n for n in range(most.bit_length())}


def _factor(value: Range) -> float:
    return value.high / value.typical


def span(value: Range) -> str:
    """Return a prediction with its error bar: 91 (65 … 128)."""
    return f"{rate(value.typical)} ({rate(value.low)} … {rate(value.high)})"


def rate(value: float) -> str:
    """Return a number in three digits at least: 0.446, 27.5, 605, 23,700."""
    if value >= 1000:  # noqa: PLR2004
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def size(context: int) -> str:
    """Return 32k for 32,768 tokens, and other lengths as they are written."""
    return f"{context // _KIB}k" if context % _KIB == 0 else tokens(context)


def users(count: int) -> str:
    """Return 1 user, 22 users."""
    return f"{count:,} user" + ("" if count == 1 else "s")
