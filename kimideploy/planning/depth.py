"""Predictions between the contexts that a plan lists.

A step takes a(n) + s·n·c seconds for n users of c tokens each: what it takes at any context, and
the reading of the KV cache, which grows with all the tokens there are. From two contexts with a
load in common come s, and with it the steps at every depth between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kimideploy.planning.estimates import Estimate


def at_depth(points: Sequence[Estimate], depth: int) -> tuple[Estimate, ...]:
    """Return the loads of *points*, of which there are some, at *depth* tokens, least first.

    Between two contexts only as many users are left as hold no more tokens than the fullest
    load. Below the least context and above the deepest one the predictions are those there.
    """
    contexts = sorted({point.context for point in points})
    below = max((c for c in contexts if c <= depth), default=contexts[0])
    above = min((c for c in contexts if c > depth), default=None)
    near = [point for point in points if point.context == below]
    if above is None or depth <= below:
        return tuple(near)
    held = max(point.concurrency * point.context for point in points)
    slope = _slope(near, [point for point in points if point.context == above])
    if slope is None:
        return tuple(point for point in points if point.context == above)
    return tuple(
        _deeper(point, depth, slope) for point in near if point.concurrency * depth <= held
    ) or tuple(point for point in points if point.context == above)


def _slope(near: Sequence[Estimate], far: Sequence[Estimate]) -> float | None:
    """Seconds of a step for each token of the cache, by the fullest load that both have."""
    there = {point.concurrency: point for point in far}
    common = [point for point in near if point.concurrency in there]
    if not common:
        return None
    one = common[-1]
    two = there[one.concurrency]
    longer = 1 / two.per_user.typical - 1 / one.per_user.typical
    return max(0.0, longer / (one.concurrency * (two.context - one.context)))


def _deeper(point: Estimate, depth: int, slope: float) -> Estimate:
    seconds = 1 / point.per_user.typical
    factor = seconds / (seconds + slope * point.concurrency * (depth - point.context))
    return Estimate(
        concurrency=point.concurrency,
        context=depth,
        per_user=point.per_user.times(factor),
        total=point.total.times(factor),
        bound=point.bound,
    )
