"""The doctor's cases: a facts file of a machine, what differs on it, and what each check says.

`cases/<check>.yaml` has a list `trips` and a list `passes`, and may have `unknown` and `other`.
An entry may say:

    facts      what differs from the machine's facts, merged into them; an item of a list by its
               index: {3: …}, every item: {all: …}, all of it anew: {"=": …}
    plan       the plan's words, as tests/unit/engines/plans.py takes them; none: no plan
    fit        fields of its Fit
    argv       words that are taken out of the command (`without`) or added to it (`with`)
    env        variables of the launch
    case       fields of the Case: pulls, installs, unit, container, offline, node
    others     what differs on each of the other nodes
    says       words of the finding, and `at` its severity
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kimideploy.doctor.case import Case
from kimideploy.engines import complete
from kimideploy.engines.site import sites
from kimideploy.facts.types import HostFacts
from kimideploy.planning.types import Layout, Offload, Plan, Share
from tests.unit.engines.plans import CATALOG, plan

HERE = Path(__file__).parent
FOLDER = "/srv/models/Kimi-K2.7-Code"


@dataclass(frozen=True, slots=True)
class Entry:
    """One case of a check, with what it should come to."""

    check: str
    kind: str
    number: int
    said: dict[str, Any]

    @property
    def name(self) -> str:
        """The test's name."""
        return f"{self.check}-{self.kind}-{self.number}"


def machine(name: str = "8xh200") -> dict[str, Any]:
    """Return the facts of a machine that nothing is wrong with."""
    found: dict[str, Any] = json.loads((HERE / "machines" / f"{name}.json").read_text("utf-8"))
    return found


def entries() -> list[Entry]:
    """Return every case of every check."""
    found = []
    for path in sorted((HERE / "cases").glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for kind, cases in document.items():
            found += [Entry(path.stem, kind, at, said or {}) for at, said in enumerate(cases)]
    return found


def merged(base: Any, patch: Any) -> Any:
    """Return *base* with *patch* in it; a map over a list changes its items, {"=": x} is x."""
    if isinstance(patch, dict) and set(patch) == {"="}:
        return patch["="]
    if isinstance(base, list) and isinstance(patch, dict):
        every = patch.get("all")
        items = [merged(item, every) if every is not None else item for item in base]
        for at, change in patch.items():
            if at != "all":
                items[at] = merged(items[at], change)
        return items
    if isinstance(base, dict) and isinstance(patch, dict):
        changed = {key: merged(base.get(key), value) for key, value in patch.items()}
        return {**base, **changed}
    return copy.deepcopy(patch)


def facts_of(patch: Any, name: str = "8xh200") -> HostFacts:
    """Return the facts of a machine with *patch* in them."""
    return msgspec.convert(merged(machine(name), patch or {}), HostFacts)


def case_of(said: dict[str, Any]) -> Case:
    """Return the case that an entry describes."""
    wishes = dict(said.get("case", {}))
    node = wishes.pop("node", 0)
    facts = facts_of(said.get("facts"))
    others = tuple(facts_of(patch) for patch in said.get("others", ()))
    if said.get("plan", {}) is None:
        return Case(facts, CATALOG, others=others, **wishes)
    found = _plan(said)
    site, launch = sites(found, CATALOG)[node], found.launches[node]
    words = [word for word in launch.argv if word not in said.get("argv", {}).get("without", ())]
    words += said.get("argv", {}).get("with", [])
    env = dict(launch.env) | said.get("env", {})
    launch = msgspec.structs.replace(launch, argv=tuple(words), env=tuple(sorted(env.items())))
    changes = said.get("launch", {})
    launch = msgspec.structs.replace(launch, **changes)
    return Case(facts, CATALOG, site, launch, others=others, **wishes)


def _plan(said: dict[str, Any]) -> Plan:
    words = {"model_path": FOLDER} | said.get("plan", {})
    if "layout" in words:
        words["layout"] = Layout(**words["layout"])
    if "offload" in words:
        words["offload"] = Offload(**words["offload"])
    bind = words.pop("bind", None)
    found = plan(**words)
    fit = dict(said.get("fit", {}))
    if "ram" in fit:
        fit["ram"] = tuple(Share(cause="experts", bytes=size) for size in fit["ram"])
    found = msgspec.structs.replace(found, fit=msgspec.structs.replace(found.fit, **fit))
    if bind is not None:
        request = msgspec.structs.replace(found.request, bind=bind)
        found = msgspec.structs.replace(found, request=request)
    return complete(found, CATALOG)
