"""How two decisions are shown side by side."""

from __future__ import annotations

from kimideploy.planning.bill import Bill
from kimideploy.planning.comparison import Comparison, Measure, Side
from kimideploy.planning.estimates import Range
from kimideploy.planning.types import NoFit
from kimideploy.planning.words import tokens
from kimideploy.views.speed import rate
from kimideploy.views.terminal import Terminal, tame

_NAME = 18


def shown(found: Comparison, terminal: Terminal) -> str:
    """Return what `kimideploy plan compare` prints: a row for each number, A left and B right."""
    column = (terminal.width - _NAME - 4) // 2
    lines = [_row("", found.a.name, found.b.name, column, terminal, bold=True)]
    for name, a, b in zip(_HEADS, _heads(found.a), _heads(found.b), strict=True):
        if a or b:
            lines.append(_row(name, a, b, column, terminal))
    for measure in found.measures:
        unit = f", {measure.unit}" if measure.unit else ""
        lines.append(_measure(f"{measure.name}{unit}", measure, column, terminal))
    lines.append("")
    for text in found.verdict:
        lines += terminal.wrapped(text, first="- ")
    bill = found.a.bill or found.b.bill
    if bill is not None:
        lines += terminal.wrapped(_mix(bill), first="- ")
    for side in (found.a, found.b):
        if isinstance(side.decision, NoFit):
            reason = f"{side.name} does not hold the model: {side.decision.reason}"
            lines += terminal.wrapped(reason, first="- ")
    return terminal.shown(lines)


_HEADS = ("fits", "tier", "weights", "engine", "layout", "KV cache in", "copies")


def _heads(side: Side) -> tuple[str, ...]:
    match side.decision:
        case NoFit():
            return ("no", *[""] * (len(_HEADS) - 1))
        case plan:
            candidate = plan.candidate
            return (
                plan.fit.verdict,
                candidate.tier,
                candidate.checkpoint,
                f"{candidate.engine} {plan.pins.engine_version}",
                str(candidate.layout),
                candidate.kv_dtype,
                f"{plan.copies:,}" if plan.copies > 1 else "",
            )


def _mix(bill: Bill) -> str:
    traffic = bill.traffic
    return (
        f"1M tokens are of a machine that is always busy, {traffic.input_per_output:g} read for"
        f" each one written, {traffic.cache_hit:.0%} of them from the cache; `kimideploy cost`"
        " takes your traffic"
    )


def _measure(name: str, measure: Measure, column: int, terminal: Terminal) -> str:
    a, b = _said(measure.a), _said(measure.b)
    marks = {"a": ("*", " "), "b": (" ", "*")}.get(measure.better, (" ", " "))
    return _row(name, f"{a} {marks[0]}".rstrip(), f"{b} {marks[1]}".rstrip(), column, terminal)


def _row(name: str, a: str, b: str, column: int, terminal: Terminal, *, bold: bool = False) -> str:
    left, right = _cut(a, column), _cut(b, column)
    text = f"{left:<{column}}  {right}".rstrip()
    return f"{name:<{_NAME}}  {terminal.paint(text, 'bold') if bold else text}".rstrip()


def _cut(text: str, most: int) -> str:
    text = tame(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _said(value: Range | None) -> str:
    if value is None:
        return "unknown"
    if value.low == value.high:
        return _number(value.typical)
    return f"{_number(value.typical)} ({_number(value.low)}–{_number(value.high)})"


def _number(value: float) -> str:
    return tokens(value) if value >= 10_000 else rate(value)  # noqa: PLR2004
