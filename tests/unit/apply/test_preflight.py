"""What is asked right before a launch, and how a rehearsal goes without it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import msgspec
import pytest

from kimideploy.apply import preflight
from kimideploy.apply.job import Job, job
from kimideploy.engines import complete
from kimideploy.errors import BusyError, KimiError, MachineError, RequestError, WeightsError
from kimideploy.facts.types import FolderFacts, HostFacts, ListenFacts, ProgramFacts
from tests.doctor.cases import facts_of
from tests.flows import place
from tests.unit.engines.plans import CATALOG, plan


def _job(**words: object) -> Job:
    asked = {"model_path": "/srv/models/Kimi-K2.7-Code"} | words
    rehearsal = asked.pop("rehearsal", None)
    return job(complete(plan(**asked), CATALOG), CATALOG, rehearsal=rehearsal)  # type: ignore[arg-type]


def _outcomes(what: Job, facts: HostFacts) -> dict[str, str]:
    return {check.name: check.outcome for check in preflight.judge(what, facts)}


def test_a_launch_that_may_go_on() -> None:
    """Five checks pass, each with what was seen."""
    checks = preflight.judge(_job(), facts_of({}))

    assert list(preflight.LAUNCH) == sorted(
        (check.name for check in checks), key=preflight.LAUNCH.index
    )
    assert {"pass"} == {check.outcome for check in checks}
    seen = {check.name: check.evidence for check in checks}
    assert "port 8000 of 127.0.0.1 is free" == seen["port"]
    assert "/opt/vllm/bin/vllm" == seen["engine"]
    assert "vLLM 0.32.0" == seen["engine-version"]
    assert "all there" in seen["weights"]


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        ({"listen": {0: {"state": "taken"}}}, BusyError),
        ({"programs": {0: {"path": None}}}, MachineError),
        ({"engines": {0: {"version": "0.1.0"}}}, MachineError),
        ({"weights": {"exists": False}}, WeightsError),
    ],
)
def test_each_refusal_has_its_exit_code(patch: object, kind: type[KimiError]) -> None:
    """Who reads only the number knows what to look at."""
    refused = preflight.refusal(preflight.judge(_job(), facts_of(patch)))

    assert kind is type(refused)
    assert refused is not None
    assert refused.hint


def test_a_skipped_check_does_not_refuse_here_either() -> None:
    """The word that the refusal of the doctor offers holds until the engine is started."""
    what = dataclasses.replace(_job(), skip=("engine", "weights"))
    facts = facts_of({"programs": {0: {"path": None}}, "weights": {"exists": False}})

    checks = preflight.judge(what, facts)

    assert None is preflight.refusal(checks)
    assert {"engine", "weights"} <= {c.name for c in checks if c.outcome == "skipped"}


def test_open_places_are_refused() -> None:
    """A command with HEAD_ADDRESS in it is never run."""
    words = {"gpu": "h100-80", "nodes": 2}
    what = _job(layout=msgspec.structs.replace(plan().candidate.layout, pp=2), **words)

    refused = preflight.refusal(preflight.judge(what, facts_of({})))

    assert isinstance(refused, RequestError)
    assert "HEAD_ADDRESS" in refused.message


def test_a_rehearsal_says_what_it_skips() -> None:
    """Nothing is left out silently."""
    free = HostFacts(listen=(ListenFacts("127.0.0.1", 8000, "free"),))

    assert {
        "port": "pass", "engine": "skipped", "engine-version": "skipped", "weights": "skipped",
    } == _outcomes(_job(rehearsal="stand-in"), free)  # fmt: skip


def test_a_rehearsal_on_the_real_engine_asks_for_it() -> None:
    """Only the weights are another's."""
    outcomes = _outcomes(_job(rehearsal="vllm"), facts_of({"programs": {0: {"path": None}}}))

    assert ("fail", "skipped") == (outcomes["engine"], outcomes["weights"])


def test_the_port_of_the_release_before_counts_as_free() -> None:
    """It is given back when that one is stopped."""
    facts = facts_of({"listen": {0: {"state": "taken", "holder": "vllm (pid 1)"}}})

    assert "fail" == _outcomes(_job(), facts)["port"]
    assert "pass" == _outcomes(_job(), preflight.with_port_free(facts))["port"]


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    """Of two environments, the one that is named counts; the port is tried, the folder read."""
    mine = place.environment(tmp_path / "mine")
    folder = place.weights(tmp_path / "weights")
    found = complete(plan(model_path=str(folder), port=place.free_port()), CATALOG)

    facts = preflight.look(job(found, CATALOG, venv=mine))

    path = f"{mine}/bin/vllm"
    assert (ProgramFacts("vllm", path, os.path.realpath(path)),) == facts.programs
    assert isinstance(facts.weights, FolderFacts)
    assert facts.weights.exists
    assert ["free"] == [one.state for one in facts.listen or ()]
    assert None is facts.reach


def test_checks_survive_json() -> None:
    """An event is one JSON object with its kind in it."""
    first, *_ = preflight.judge(_job(), facts_of({}))

    assert "checked" == json.loads(msgspec.json.encode(first))["event"]
