"""The weights: pulled by this host and proved, or taken over from what is here."""

from __future__ import annotations

from pathlib import Path

from kimideploy.apply.events import Change
from kimideploy.apply.steps.base import Step, Work
from kimideploy.apply.weights import bring, foretold
from kimideploy.weights.resolve import Ways
from kimideploy.weights.unbundle import unbundle


class WeightsStep(Step):
    """Every byte is hashed before an engine may read it. Not undone: they are what costs most."""

    name = "weights"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what must come; the plan is put on weights that are here."""
        if _is_named(work):
            return ()
        if work.plan.local is not None and Path(work.plan.local.path).exists():
            return ()
        plan, steps = foretold(work.plan, work.catalog, work.home.models, _ways(work))
        if plan.local is not None:
            work.plan = plan
            return ()
        return tuple(Change(step) for step in steps if not step.startswith("take the weights"))

    def do(self, work: Work) -> None:
        """Bring them."""
        if work.order.bundle is not None:
            where = Path(work.order.bundle)
            unbundle(where, work.home.models, accept_code=work.order.accept_code, tell=work.tell)
        work.plan = bring(work.plan, work.catalog, work.home.models, _ways(work), work.tell)


def _is_named(work: Work) -> bool:
    return work.is_rehearsal or work.plan.request.model_path is not None


def _ways(work: Work) -> Ways:
    order = work.order
    return Ways(
        offline=order.offline,
        accept_code=order.accept_code,
        adopt=tuple(Path(folder) for folder in order.adopt),
    )
