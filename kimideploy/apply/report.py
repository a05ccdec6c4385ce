"""What the process that runs an engine says of it: one small file, replaced as things move."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import msgspec

from kimideploy.apply.events import Died, Progress
from kimideploy.apply.files import text
from kimideploy.apply.home import Home
from kimideploy.facts.types import Strict


class Report(Strict, frozen=True, omit_defaults=True):
    """How the engine of a release stands. Times are seconds since 1970.

    `moved` grows with every line of its log that brought news. `token` is when a token came last.
    """

    release: int
    pid: int
    state: Literal["loading", "ready", "ended"]
    since: float
    moved: int = 0
    progress: Progress | None = None
    line: str | None = None
    token: float | None = None
    died: Died | None = None
    why: str | None = None


def report(home: Home) -> Report | None:
    """Return what the running engine said last, None if it said nothing yet."""
    said = text(home.standing)
    if said is not None:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(said, type=Report)
    return None
