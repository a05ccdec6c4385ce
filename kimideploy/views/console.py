"""The two Rich consoles: data to `out`, talk to `err`.

In a pipe a line has 80 columns, COLUMNS asks for another number, NO_COLOR for no colour.
Text that comes from elsewhere is never read as markup.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 80


class _Console(Console):
    """A console whose reader may leave: what that means is not its to say."""

    def on_broken_pipe(self) -> None:
        """Raise what happened, once; Rich would end the program with a failure."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, "the reader has gone")


def console(stream: TextIO, *, stderr: bool = False) -> Console:
    """Return a console for *stream*; it writes to whatever sys.stdout or sys.stderr is then."""
    plain = not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit()
    return _Console(
        stderr=stderr,
        width=PIPE_WIDTH if plain else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


out, err = console(sys.stdout), console(sys.stderr, stderr=True)
