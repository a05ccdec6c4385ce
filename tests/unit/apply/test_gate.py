"""Which GPUs the unit gives to an engine; the facts come from the real binding on a stub driver."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kimideploy.apply.preflight import GATE, checked
from kimideploy.doctor.case import Case
from kimideploy.doctor.check import CHECKS
from kimideploy.doctor.checks.gpus import is_coming_up
from kimideploy.doctor.examine import examine
from kimideploy.engines import complete
from kimideploy.engines.site import sites
from kimideploy.facts.types import HostFacts
from tests import nvml
from tests.doctor.cases import facts_of
from tests.unit.engines.plans import CATALOG, plan
from tests.unit.facts.conftest import run_probe


def _judged(facts: HostFacts) -> list[tuple[str, str, str | None]]:
    found = complete(plan(), CATALOG)
    case = Case(facts, CATALOG, sites(found, CATALOG)[0], found.launches[0])
    told = checked([one for one in examine(case, only=GATE).checks if one.findings])
    return [(check.outcome, check.evidence, check.fix) for check in told]


def test_the_gate_is_made_of_checks() -> None:
    """Every name of it is a check's."""
    assert set(GATE) <= set(CHECKS)


def test_sound_gpus_pass() -> None:
    """Eight sound GPUs are one line."""
    assert [("pass", "8 GPUs answer", None)] == _judged(facts_of({}))


def test_what_is_unknown_hinders_nothing() -> None:
    """A driver that can't say how its GPUs are is no reason to refuse them."""
    bare = {"gpus": {"=": [{"index": index, "name": "NVIDIA H200"} for index in range(8)]}}

    assert [("pass", "8 GPUs answer", None)] == _judged(facts_of(bare))


def test_cards_without_bridges_are_sound() -> None:
    """Cards that bridges join, some or none of them, are not called broken."""
    none = {"gpus": {"all": {"fabric": None, "nvlinks_active": 0}}}
    one = {"gpus": {"all": {"fabric": None}, 7: {"nvlinks_active": 0}}}

    assert ["pass"] == [outcome for outcome, *_ in _judged(facts_of(none))]
    assert {"pass", "warn"} == {outcome for outcome, *_ in _judged(facts_of(one))}


def test_a_fabric_that_comes_up() -> None:
    """Soon after a boot the switches are still being set up, and that is told from a failure."""
    states = {"in progress": True, "not started": True, "up": False, "state 9 of NVML": False}

    for state, coming in states.items():
        gpus = tuple(msgspec.structs.replace(g, fabric=state) for g in facts_of({}).gpus)
        assert coming is is_coming_up(gpus)


def test_through_the_real_binding(tmp_path: Path) -> None:
    """Each fault that the stub driver shows is judged as it should be."""
    judged = _judged(run_probe(env=nvml.environment(nvml.build(tmp_path), "8xh200-sick")))

    failed = " / ".join(seen for outcome, seen, _ in judged if outcome == "fail")
    for words in ("GPU 1 is not fit", "GPU 2", "GPU 3", "GPU 4 has broken", "fabric of GPU 6"):
        assert words in failed
    assert all(fix for outcome, _, fix in judged if outcome == "fail")
