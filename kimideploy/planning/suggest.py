"""Near names for a word nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean `x`?" for the nearest known word, or nothing."""
    near = get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean `{near[0]}`?" if near else ""
