"""Bytes, rates and times as people say them."""

from __future__ import annotations


def gb(size: float) -> str:
    """Return decimal bytes with a unit that leaves one to three digits before the point."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def per_second(rate: float | None) -> str:
    """Return a rate in bytes per second; nothing where there is none."""
    return f"{gb(rate)}/s" if rate else ""


def span(seconds: float) -> str:
    """Return seconds in the unit that fits them."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
