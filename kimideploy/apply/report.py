"""What the process that runs an engine says of it: one small file, replaced as things move."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from kimideploy.apply.answers import Report
from kimideploy.apply.files import text
from kimideploy.apply.home import Home


def report(home: Home) -> Report | None:
    """Return what the running engine said last, None if it said nothing yet."""
    said = text(home.standing)
    if said is not None:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(said, type=Report)
    return None
