"""compare: two decisions side by side, number by number, and who is better at what."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.planning.comparison import Better, Comparison, Measure, Side
from kimideploy.planning.estimates import DEPTH, Estimate, Range
from kimideploy.planning.types import NoFit, Plan


def compare(a: Side, b: Side) -> Comparison:
    """Return *a* beside *b*; what only one of them has is compared with nothing."""
    measures = tuple(_measures(a, b))
    return Comparison(a, b, measures, tuple(_verdict(a, b, measures)))


def _measures(a: Side, b: Side) -> Iterator[Measure]:
    one, two = _numbers(a), _numbers(b)
    for name, (unit, high_is_good) in _MEASURES.items():
        x, y = one.get(name), two.get(name)
        if x is not None or y is not None:
            better, ratio = _better(x, y, high_is_good=high_is_good)
            yield Measure(name, unit, x, y, better, ratio)


#: name → unit, and whether more of it is better
_MEASURES: dict[str, tuple[str, bool]] = {
    "context": ("tokens", True),
    "KV cache": ("tokens", True),
    "one user": ("tok/s", True),
    "all users": ("tok/s", True),
    "prompts": ("tok/s", True),
    "first token": ("s", False),
    "loading": ("s", False),
    "GPUs": ("", False),
    "an hour": ("USD", False),
    "1M tokens": ("USD", False),
}


def _numbers(side: Side) -> dict[str, Range]:
    plan = side.decision
    if isinstance(plan, NoFit):
        return {}
    fit, speed, bill = plan.fit, plan.speed, side.bill
    low = fit.kv_tokens_low if fit.kv_tokens_low is not None else fit.kv_tokens
    high = fit.kv_tokens_high if fit.kv_tokens_high is not None else fit.kv_tokens
    found = {
        "context": _exact(fit.context),
        "KV cache": Range(low, fit.kv_tokens, high),
        "GPUs": _exact(plan.candidate.nodes * plan.candidate.gpus_per_node),
    }
    if speed is not None:
        there = _deep(speed.points)
        if there:
            found["one user"] = there[0].per_user
            found["all users"] = there[-1].total
        found |= {"prompts": speed.prefill, "first token": speed.ttft, "loading": speed.load}
    if bill is not None:
        found["an hour"] = bill.machine_hour
        found["1M tokens"] = bill.at_full_load.blended
    return found


def _deep(points: tuple[Estimate, ...]) -> list[Estimate]:
    """The loads at the deepest context up to DEPTH."""
    depth = max((p.context for p in points if p.context <= DEPTH), default=None)
    return [point for point in points if point.context == depth]


def _exact(value: float) -> Range:
    return Range(value, value, value)


def _better(x: Range | None, y: Range | None, *, high_is_good: bool) -> tuple[Better, float | None]:
    if x is None or y is None:
        return "unknown", None
    if x.typical == y.typical:
        return "same", None
    if x.low <= y.typical <= x.high and y.low <= x.typical <= y.high:
        return "close", None
    more, less = max(x.typical, y.typical), min(x.typical, y.typical)
    first = (x.typical > y.typical) == high_is_good
    return "a" if first else "b", more / less if less > 0 else None


def _verdict(a: Side, b: Side, measures: tuple[Measure, ...]) -> Iterator[str]:
    fits = [side for side in (a, b) if isinstance(side.decision, Plan)]
    if not fits:
        yield "neither holds the model"
        return
    if len(fits) == 1:
        other = b if fits[0] is a else a
        yield f"only {fits[0].name} holds the model, {other.name} does not"
        return
    for side, letter in ((a, "a"), (b, "b")):
        found = [
            f"{measure.name}" + (f" ({measure.ratio:.3g} times)" if measure.ratio else "")
            for measure in measures
            if measure.better == letter
        ]
        if found:
            yield f"{side.name} is better at: {', '.join(found)}"
    close = [measure.name for measure in measures if measure.better == "close"]
    if close:
        yield f"too close to tell: {', '.join(close)}"
    if all(measure.better in ("same", "unknown") for measure in measures):
        yield "no number tells them apart"
