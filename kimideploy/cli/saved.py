"""Plans that were saved: reading what `plan --json` wrote, from a file or from stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kimideploy.errors import RequestError

if TYPE_CHECKING:
    from kimideploy.cli.options import PlanOptions
    from kimideploy.planning.types import Decision


def text_of(name: str, *, what: str = "--plan ") -> str:
    """Return the text of the file *name*, `-` for stdin; RequestError for what can't be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{what}{name} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{what}{name} can't be read: {reason}") from error


def name_of(name: str) -> str:
    """Return what messages call the file *name*."""
    return name if name != "-" else "stdin"


def saved(name: str) -> Decision:
    """Return the decision in the file *name*."""
    from kimideploy.planning.saved import decision_from  # noqa: PLC0415

    return decision_from(text_of(name), name=name_of(name))


def nothing_else(options: PlanOptions, name: str) -> None:
    """Raise RequestError for the first wish that the plan in *name* has already settled."""
    for wish in options.said():
        if wish != "profiles":
            flag = "--" + wish.replace("_", "-")
            raise RequestError(
                f"{flag} is decided by the plan in {name}",
                hint=f"plan again with {flag}, or leave it out",
            )
