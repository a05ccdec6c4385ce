"""The weights: pulled by this host and proved, or taken over from what is here.

A rehearsal with the real vLLM has the nano Kimi in their place, whatever the plan says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kimideploy.apply.events import Change
from kimideploy.apply.steps.base import Step, Work
from kimideploy.apply.weights import bring, foretold
from kimideploy.rehearsal.nano import is_written, write_nano
from kimideploy.rehearsal.real import on_nano
from kimideploy.weights.resolve import Ways
from kimideploy.weights.unbundle import unbundle


class WeightsStep(Step):
    """Every byte is hashed before an engine may read it. Not undone: they are what costs most."""

    name = "weights"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what must come; the plan is put on weights that are here."""
        if work.order.engine.kind == "nano":
            return _look_at_nano(work)
        if _is_named(work):
            return ()
        if work.plan.local is not None and Path(work.plan.local.path).exists():
            return ()
        ways = _ways(work)
        if work.order.bundle is not None:
            # Why: what a bundle brings is here once it is unpacked; no hub is asked to foretell.
            ways = replace(ways, offline=False)
        plan, steps = foretold(work.plan, work.catalog, work.home.models, ways)
        if plan.local is not None:
            work.plan = plan
            return ()
        if work.order.bundle is not None:
            return (Change(f"unpack {work.order.bundle}, every byte against its manifest"),)
        return tuple(Change(step) for step in steps if not step.startswith("take the weights"))

    def do(self, work: Work) -> None:
        """Bring them."""
        if work.order.engine.kind == "nano":
            write_nano(_nano(work))
            return
        if work.order.bundle is not None:
            where = Path(work.order.bundle)
            unbundle(where, work.home.models, accept_code=work.order.accept_code, tell=work.tell)
        work.plan = bring(work.plan, work.catalog, work.home.models, _ways(work), work.tell)


def _look_at_nano(work: Work) -> tuple[Change, ...]:
    """Put the plan on the nano Kimi; every word that differs from the plan's is a change."""
    folder = _nano(work)
    changes: tuple[str, ...] = ()
    if work.plan.request.model_path != str(folder):
        work.plan, changes = on_nano(work.plan, folder)
    if is_written(folder):
        return ()
    return (Change(f"write the nano Kimi to {folder}"), *map(Change, changes))


def _nano(work: Work) -> Path:
    return work.home.models / "nano-kimi"


def _is_named(work: Work) -> bool:
    return work.order.engine.rehearsal is not None or work.plan.request.model_path is not None


def _ways(work: Work) -> Ways:
    order = work.order
    return Ways(
        offline=order.offline,
        accept_code=order.accept_code,
        adopt=tuple(Path(folder) for folder in order.adopt),
        manifests=order.peer.manifests if order.peer is not None else (),
        # Why: the xet store is the hub's, and a peer has the files alone.
        xet=order.peer is None or order.peer.url is None,
    )
