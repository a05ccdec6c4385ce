"""How the causes that a log shows are told."""

from __future__ import annotations

from collections.abc import Sequence

from kimideploy.doctor.causes import Cause
from kimideploy.views.terminal import Terminal

_INDENT = " " * 6


def shown(name: str, causes: Sequence[Cause], lines: int, terminal: Terminal) -> str:
    """Return what `doctor --log` prints: the cause, then what else the log shows."""
    if not causes:
        return terminal.shown(
            terminal.wrapped(f"{name}: no known failure in {lines:,} lines", first="")
        )
    said: list[str] = []
    for at, cause in enumerate(causes):
        head = "the cause" if at == 0 else "also"
        said += terminal.wrapped(
            f"{head}: {cause.failure.cause} ({cause.failure.id})", first="", rest="  "
        )
        if at == 0:
            said[0] = terminal.paint(said[0], "bold")
        times = f", {cause.times} times" if cause.times > 1 else ""
        said += terminal.wrapped(
            f"line {cause.number}{times}: {cause.line}", first="  ", rest=_INDENT
        )
        said += terminal.wrapped(f"fix: {cause.failure.fix}", first="  ", rest=_INDENT)
        # Why so: an address can't be folded.
        said.append(f"  see: {cause.failure.link}")
    return terminal.shown(said)
