"""What a log says of a failure: its lines against the table of known ones. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kimideploy.catalog.failures import Failure

#: characters of a line that are looked at and shown; engines print whole configurations on one
_LONGEST, _SHOWN = 4000, 200


@dataclass(frozen=True, slots=True)
class Cause:
    """A known failure in a log: the last line that shows it, its number from 1, and how many do."""

    failure: Failure
    line: str
    number: int
    times: int


def causes_in(text: str, failures: Sequence[Failure]) -> tuple[Cause, ...]:
    """Return every known failure that *text* shows, in the order of the table: the first explains.

    A line counts for the first failure that fits it, so that a special case is not told twice.
    """
    lines = text.splitlines()
    body = "\n".join(line[:_LONGEST] for line in lines)
    starts = _starts(body)
    taken: dict[int, int] = {}
    for at, failure in enumerate(failures):
        for number in _lines_of(_compiled(failure.pattern), body, starts):
            taken.setdefault(number, at)
    found: dict[int, list[int]] = {}
    for number, at in sorted(taken.items()):
        found.setdefault(at, []).append(number)
    return tuple(
        Cause(failures[at], lines[numbers[-1]].strip()[:_SHOWN], numbers[-1] + 1, len(numbers))
        for at, numbers in sorted(found.items())
    )


def _lines_of(pattern: re.Pattern[str], body: str, starts: Sequence[int]) -> Iterator[int]:
    """Yield the lines that *pattern* fits."""
    # Why over the whole text: a search for each line is far slower.
    told = -1
    for match in pattern.finditer(body):
        number = bisect_right(starts, match.start()) - 1
        if number == told:
            continue
        told = number
        end = starts[number + 1] - 1 if number + 1 < len(starts) else len(body)
        if pattern.search(body[starts[number] : end]):
            yield number


def _starts(body: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", body))]


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.MULTILINE)
