"""Bytes, rates and times as people say them."""

from __future__ import annotations

from kimideploy.quantities import decimal


def per_second(rate: float | None) -> str:
    """Return a rate in bytes per second; nothing where there is none."""
    return f"{decimal(rate)}/s" if rate else ""


def span(seconds: float) -> str:
    """Return seconds in the unit that fits them."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
