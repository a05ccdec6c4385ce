"""The rules: every check there is, in the order in which a verdict lists them."""

from __future__ import annotations

from kimideploy.conformance.rules import access, crowd, limits, memory, thinking, tools
from kimideploy.conformance.rules.base import Rule

RULES: tuple[Rule, ...] = (
    *access.RULES,
    *thinking.RULES,
    *tools.RULES,
    *memory.RULES,
    *limits.RULES,
    *crowd.RULES,
)


def rules(suite: str) -> tuple[Rule, ...]:
    """Return the rules of *suite*: "full" is all of them."""
    return tuple(rule for rule in RULES if suite == "full" or rule.quick)
