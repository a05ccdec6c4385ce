"""Engine versions: which is older, and which must not be used where."""

from __future__ import annotations

import re

from kimideploy.catalog.types import Denied, Engine

_NUMBERS = re.compile(r"[0-9]+")
#: 0.5.10 and b11434 alike; what follows the numbers of a release (rc1, +cpu, .post1) is cut off
_RELEASE = re.compile(r"[bv]?([0-9]+(?:\.[0-9]+)*)(.*)", re.DOTALL)


def release(version: str) -> tuple[int, ...] | None:
    """Return the numbers of a release, trailing zeros dropped; None if there are none."""
    found = _RELEASE.fullmatch(version.strip())
    if found is None:
        return None
    numbers = [int(part[:9]) for part in _NUMBERS.findall(found[1])]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def older(version: str, minimum: str) -> bool:
    """Whether *version* is known to be older than *minimum*."""
    have, least = release(version), release(minimum)
    return have is not None and least is not None and have < least


def denial(
    engine: Engine, version: str, *, generation: str | None, architecture: str | None
) -> Denied | None:
    """Return why *version* must not be used on that GPU generation and CPU architecture."""
    numbers = release(version)
    for denied in engine.versions.denied:
        here = not denied.generations or generation in denied.generations
        there = denied.architecture is None or denied.architecture == architecture
        if here and there and numbers is not None and release(denied.version) == numbers:
            return denied
    return None
