"""Money and tokens as people write them, for sentences of the planner."""

from __future__ import annotations

from kimideploy.planning.estimates import Range

_CENTS = 100
_LEAST = 0.0001
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def usd(amount: float) -> str:
    """Return dollars: $20,850, and below a hundred with cents, $4.20; never $0.00 for a little."""
    if amount >= _CENTS:
        return f"${amount:,.0f}"
    if amount >= 0.01 or amount == 0:  # noqa: PLR2004
        return f"${amount:.2f}"
    return f"${amount:.4f}" if amount >= _LEAST else f"under ${_LEAST:.4f}"


def usd_range(amount: Range) -> str:
    """Return what is typical, and from where to where: $20,850 ($17,000 … $33,000)."""
    if usd(amount.low) == usd(amount.high):
        return usd(amount.typical)
    return f"{usd(amount.typical)} ({usd(amount.low)} … {usd(amount.high)})"


def tokens_range(count: Range) -> str:
    """Return what is typical, and from where to where: 34M (27.1M … 44M)."""
    if tokens(count.low) == tokens(count.high):
        return tokens(count.typical)
    return f"{tokens(count.typical)} ({tokens(count.low)} … {tokens(count.high)})"


def tokens(count: float) -> str:
    """Return tokens in three digits: 34M, 1.25B, 100K."""
    for scale, letter in _UNITS:
        # Why not `count >= scale`: 999,600 is 1M in three digits, not 1000K.
        if count >= scale * 0.9995:
            return f"{_three(count / scale)}{letter}"
    return _three(count)


def _three(value: float) -> str:
    digits = max(0, 2 - len(str(int(value + 0.5))) + 1)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
