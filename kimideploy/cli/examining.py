"""What `doctor` and `serve` share: the facts that a plan asks for, and the case they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.doctor.case import Case
    from kimideploy.facts.types import Aims, HostFacts
    from kimideploy.planning.types import Plan
    from kimideploy.remote.bootstrap import Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a machine is to serve, and how, besides the plan itself."""

    node: int = 0
    venv: Path | None = None
    #: weights that are not here are pulled, from the hub unless it is offline
    pulls: bool = False
    offline: bool = False
    #: where a pull would put them, and another hub than the usual one
    store: str | None = None
    hub: str | None = None
    installs: bool = False
    unit: bool = False
    container: str | None = None


def case_of(plan: Plan | None, catalog: Catalog, facts: HostFacts, subject: Subject) -> Case:
    """Return the case of one machine."""
    from kimideploy.doctor.case import Case  # noqa: PLC0415
    from kimideploy.engines.site import sites  # noqa: PLC0415

    site = sites(plan, catalog)[subject.node] if plan is not None else None
    return Case(
        facts,
        catalog,
        site,
        plan.launches[subject.node] if plan is not None else None,
        pulls=subject.pulls,
        offline=subject.offline,
        installs=subject.installs,
        unit=subject.unit,
        container=subject.container,
    )


def aims_of(plan: Plan | None, catalog: Catalog, subject: Subject) -> Aims:
    """Return what the probe is to look for."""
    from kimideploy.doctor.aims import aims  # noqa: PLC0415
    from kimideploy.engines.site import sites  # noqa: PLC0415
    from kimideploy.weights.hub import address  # noqa: PLC0415

    venv = str(subject.venv.expanduser()) if subject.venv is not None else None
    return aims(
        sites(plan, catalog)[subject.node] if plan is not None else None,
        plan.launches[subject.node] if plan is not None else None,
        venv=venv,
        weights=subject.store,
        # Why without: facts are saved and sent around, and a mirror may need a password.
        hub=None if subject.offline else re.sub(r"//[^/@]*@", "//", subject.hub or address()),
    )


def looked_here(plan: Plan | None, catalog: Catalog, subject: Subject) -> HostFacts:
    """Return the facts of this machine, with what the plan asks for."""
    from kimideploy.facts.local import inspect_local  # noqa: PLC0415

    venvs = [subject.venv] if subject.venv is not None else []
    return inspect_local(venvs=venvs, aims=aims_of(plan, catalog, subject))


def looked_there(
    found: Sequence[Reached],
    plans: Sequence[Plan | None],
    catalog: Catalog,
    subjects: Sequence[Subject],
) -> list[Case]:
    """Return the case of each host; nodes of one plan know each other."""
    from kimideploy.cli.deploy import python_of  # noqa: PLC0415
    from kimideploy.remote.inspect import inspect  # noqa: PLC0415
    from kimideploy.remote.places import all_of  # noqa: PLC0415

    def look(rank: int) -> HostFacts:
        one, subject = found[rank], subjects[rank]
        venvs = [str(subject.venv)] if subject.venv is not None else []
        aims = aims_of(plans[rank], catalog, subject)
        return inspect(one.shell, venvs, python=python_of(one), aims=aims)

    facts = all_of(range(len(found)), look)
    cases = []
    for plan, here, subject in zip(plans, facts, subjects, strict=True):
        case = case_of(plan, catalog, here, subject)
        cases.append(among(case, facts if plan is not None and plan.candidate.nodes > 1 else ()))
    return cases


def among(case: Case, nodes: Sequence[HostFacts]) -> Case:
    """Return *case* with the other ones of *nodes*."""
    return replace(case, others=tuple(facts for facts in nodes if facts is not case.facts))


def stored(plan: Plan | None, catalog: Catalog, top: Path | None = None) -> str | None:
    """Return where a pull would put the weights of *plan*, or has; None: the plan names them."""
    if plan is None or plan.request.model_path is not None or plan.local is not None:
        return None
    from kimideploy.weights.store import home, root  # noqa: PLC0415
    from kimideploy.weights.wanted import of_plan  # noqa: PLC0415

    wanted = of_plan(plan, catalog)
    if not wanted:
        return None
    return str(home(root(top), wanted[0].repo, wanted[0].quant))
