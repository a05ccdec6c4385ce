"""Bytes with a unit, read and written the same way everywhere."""

from __future__ import annotations

import re

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_UNITS = {
    "": 1, "b": 1,
    "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000, "tb": 1_000_000_000_000,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)
# Why: a number longer than any real machine is a slip or an attack; refuse before arithmetic.
_LONGEST = 24


class Bytes(int):
    """A number of bytes that a profile may write with a unit: ``139.8 GiB``, ``595 GB``."""


def parse_bytes(text: str) -> int:
    """Return the bytes that *text* names; raises ValueError with the reason."""
    found = _QUANTITY.fullmatch(text)
    if found is None or len(text) > _LONGEST:
        raise ValueError(f"{text!r} is not an amount such as 512GiB or 595GB")
    number, unit = found.groups()
    if unit.lower() not in _UNITS:
        raise ValueError(f"{text!r} has an unknown unit {unit!r}; use GB or GiB")
    whole, _, fraction = number.partition(".")
    scale = int("1" + "0" * len(fraction))
    return int(whole + fraction) * _UNITS[unit.lower()] // scale


def decimal(size: float) -> str:
    """Return bytes in a decimal unit that leaves one to three digits before the point."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"
