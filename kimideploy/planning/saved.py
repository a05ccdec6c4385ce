"""A plan as `kimideploy plan --json` wrote it."""

from __future__ import annotations

from kimideploy.documents import read_document
from kimideploy.errors import RequestError
from kimideploy.planning.types import PLAN_SCHEMA, Decision, NoFit, Plan


def decision_from(text: str, *, name: str) -> Decision:
    """Return the Plan or the NoFit that *text* holds; RequestError for anything else."""
    decision: Decision = read_document(text, Plan | NoFit, name=name)  # type: ignore[arg-type]
    if decision.schema != PLAN_SCHEMA:
        raise RequestError(f"{name} is a {decision.schema}; this kimideploy reads {PLAN_SCHEMA}")
    return decision


def plan_from(text: str, *, name: str) -> Plan:
    """Return the Plan that *text* holds; RequestError for anything else, a saved "no" included."""
    decision = decision_from(text, name=name)
    if isinstance(decision, NoFit):
        raise RequestError(
            f"{name} is no plan: it says that nothing fits, {decision.reason}",
            hint="`kimideploy plan` with the ways out it names gives one",
        )
    return decision
