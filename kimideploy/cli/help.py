"""How the end of a help is written."""

from __future__ import annotations

from collections.abc import Sequence


def examples(lines: Sequence[str]) -> str:
    """Return the examples for the end of a help, one a line and not wrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
