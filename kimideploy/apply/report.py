"""What the process that runs an engine says of it: one small file, replaced as things move."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import msgspec

from kimideploy.apply.answers import Report
from kimideploy.apply.home import Home

_LARGEST = 1 << 20


def report(home: Home) -> Report | None:
    """Return what the running engine said last, None if it said nothing yet."""
    # Why so careful: the engine's own user may put anything there, a pipe that blocks say.
    try:
        handle = os.open(home.standing, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        said = os.read(handle, _LARGEST)
    finally:
        os.close(handle)
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(said, type=Report)
    return None
