"""The weights a plan serves from, on this machine: pulled, proved, and told to the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kimideploy.catalog.types import Catalog
from kimideploy.engines import complete
from kimideploy.errors import WeightsError
from kimideploy.planning.types import Local, Plan
from kimideploy.weights import code, load
from kimideploy.weights.events import Tell, Told
from kimideploy.weights.pull import Pulled, pull_all
from kimideploy.weights.resolve import Ways, known
from kimideploy.weights.store import home
from kimideploy.weights.types import Load
from kimideploy.weights.wanted import of_plan

#: warnings that a pull settles: nothing pinned, a GGUF whose parts nobody has counted
_SETTLED = ("unpinned", "first-part")


def bring(plan: Plan, catalog: Catalog, top: Path, ways: Ways, tell: Tell) -> Plan:
    """Return *plan* on weights that are here and proved, pulled below *top* where they were not.

    The commit and the code stand in its pins afterwards. A plan on a folder that the operator
    named is returned as it is. Raises what `pull` raises.
    """
    if plan.request.model_path is not None:
        return plan
    pulled, *draft = pull_all(of_plan(plan, catalog), top, ways, tell)
    reading = _reading(pulled, measure=True)
    for note in reading.notes:
        tell(Told(text=note))
    return _on(plan, catalog, pulled, draft, reading)


def foretold(plan: Plan, catalog: Catalog, top: Path, ways: Ways) -> tuple[Plan, tuple[str, ...]]:
    """Return *plan* as `bring` would, as far as that is known without the hub, and its steps.

    Raises WeightsError where the hub may not be asked and what it would be asked for is not here.
    """
    steps: list[str] = []
    here: list[Pulled] = []
    wishes = of_plan(plan, catalog)
    for wanted in wishes:
        folder = home(top, wanted.repo, wanted.quant)
        manifest = known(wanted, folder, ways)
        if manifest is not None and (folder / manifest.revision).is_dir():
            here.append(Pulled(folder / manifest.revision, manifest))
            steps.append(f"take the weights in {here[-1].folder}, proved before")
            continue
        steps.append(
            f"pull {wanted.repo} at {wanted.revision or 'its newest commit'} into {folder},"
            " every byte against the hub's hash; the engine is given that folder"
        )
    if len(here) < len(wishes):
        return plan, tuple(steps)
    main, *draft = here
    return _on(plan, catalog, main, draft, _reading(main, measure=False)), tuple(steps)


def _reading(pulled: Pulled, *, measure: bool) -> Load:
    sizes = [(item.path, item.size) for item in pulled.manifest.items]
    return load.look(pulled.folder, sizes, measure=measure)


def _on(
    plan: Plan, catalog: Catalog, pulled: Pulled, draft: Sequence[Pulled], reading: Load
) -> Plan:
    """Return *plan* on folders that are here: given to the engine, and pinned as what they are."""
    pins = msgspec.structs.replace(
        plan.pins,
        revision=pulled.manifest.revision,
        code=code.pins_of(pulled.folder.joinpath, pulled.manifest),
        draft=draft[0].manifest.revision if draft else None,
    )
    local = Local(
        path=str(_first(pulled)),
        draft=str(draft[0].folder) if draft else None,
        prefetch=reading.kind == "network",
        seconds=math.ceil(reading.seconds) if reading.seconds is not None else None,
    )
    settled = tuple(notice for notice in plan.warnings if notice.code not in _SETTLED)
    return complete(
        msgspec.structs.replace(plan, pins=pins, local=local, warnings=settled), catalog
    )


def _first(pulled: Pulled) -> Path:
    """Return what the engine is given: the folder, or the first part of the GGUF in it."""
    names = sorted(item.path for item in pulled.manifest.items)
    if any(name.endswith(".safetensors") for name in names):
        return pulled.folder
    parts = [name for name in names if name.endswith(".gguf") and "mmproj" not in name]
    if not parts:
        raise WeightsError(f"{pulled.folder} has no weights to serve")
    return pulled.folder / parts[0]
