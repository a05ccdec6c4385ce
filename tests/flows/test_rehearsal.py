"""The rehearsal: every engine's own argv, log and routes, served by the stand-in."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimideploy.apply.events import Died, Event, Judged, Progress, Serving
from kimideploy.apply.job import job, rehearsed
from kimideploy.apply.serve import serve
from kimideploy.catalog.types import EngineId
from kimideploy.conformance.verdict import Verdict
from kimideploy.engines import complete
from kimideploy.errors import EngineError
from kimideploy.planning.types import Layout, Offload, Plan
from tests.flows import place
from tests.unit.engines.plans import CATALOG, GGUF, plan

#: seconds that no rehearsal takes unless it hangs
LIMIT = 120


def _plan(engine: EngineId, port: int) -> Plan:
    if engine == "llamacpp":
        found = plan(engine, "rtx4090", layout=Layout(), checkpoint=GGUF, port=port)
    elif engine == "ktransformers":
        offload = Offload(gpu_experts=8, threads=64, numa=2)
        found = plan(engine, "rtx4090-48", layout=Layout(tp=4), offload=offload, port=port)
    else:
        found = plan(engine, port=port)
    return complete(found, CATALOG)


def _rehearse(
    engine: EngineId, log: Path, *options: str, quiet: float | None = None
) -> tuple[list[Event], Verdict | EngineError]:
    what = job(
        _plan(engine, place.free_port()),
        CATALOG,
        log=log,
        rehearsal="stand-in",
        once=True,
        ready_timeout=quiet,
    )
    words = rehearsed(what.launch.argv, "--load-seconds", "0.5", "--shards", "8", *options)
    events: list[Event] = []
    try:
        return events, serve(replace(what, argv=words), events.append)
    except EngineError as error:
        return events, error


@pytest.mark.parametrize("engine", ["vllm", "sglang", "ktransformers", "llamacpp"])
def test_every_engine_can_be_rehearsed(engine: EngineId, tmp_path: Path) -> None:
    """Its argv is taken, its log understood, its promises kept in its own field."""
    events, verdict = _rehearse(engine, tmp_path / "log")

    assert isinstance(verdict, Verdict)
    assert [] == [check for check in verdict.checks if check.outcome == "fail"]
    stages = [event.stage for event in events if isinstance(event, Progress)]
    assert {"starting", "loading weights", "opening the server"} <= set(stages)
    (serving,) = [event for event in events if isinstance(event, Serving)]
    assert CATALOG.engines[engine].reasoning_field == serving.reasoning_field
    ids = [e.check.evidence for e in events if isinstance(e, Judged) and e.check.name == "tool id"]
    assert ["functions.run_python:0"] == ids


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_all_shards_are_counted(engine: EngineId, tmp_path: Path) -> None:
    """The bar the stand-in draws is read to its end."""
    events, _ = _rehearse(engine, tmp_path / "log")

    seen = {(e.done, e.total) for e in events if isinstance(e, Progress) and e.total == 8}
    assert (8, 8) in seen


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ("oom", "a GPU ran out of memory"),
        ("port", "something else listens on the port"),
        ("version", "this version does not know"),
        ("exit0", "the engine process ended"),
    ],
)
def test_known_deaths_are_explained(failure: str, cause: str, tmp_path: Path) -> None:
    """Each way to die that the stand-in knows is recognised by its log."""
    events, error = _rehearse("vllm", tmp_path / "log", "--fail", failure)

    assert isinstance(error, EngineError)
    (died,) = [event for event in events if isinstance(event, Died)]
    assert cause in str(died.cause)


def test_a_hang_is_noticed(tmp_path: Path) -> None:
    """A stand-in that says no more is given up, and ended."""
    events, error = _rehearse("vllm", tmp_path / "log", "--fail", "hang", quiet=1.5)

    assert isinstance(error, EngineError)
    (died,) = [event for event in events if isinstance(event, Died)]
    assert "did not become ready" in died.how


def test_another_model_is_noticed(tmp_path: Path) -> None:
    """Ready means our model."""
    _, error = _rehearse("vllm", tmp_path / "log", "--fail", "wrong-model")

    assert isinstance(error, EngineError)
    assert "and not kimi-k2.7-code" in str(error)


def test_the_first_command_of_the_readme(tmp_path: Path) -> None:
    """`kimideploy serve --rehearse --once`, from planning to the endpoint."""
    port = place.free_port()
    argv, env = place.cli(
        "serve", "--rehearse", "--once", f"--port={port}", f"--log={tmp_path / 'log'}", "--json"
    )

    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)

    assert 0 == done.returncode, done.stderr
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    serving = next(event for event in events if event["event"] == "serving")
    assert f"http://127.0.0.1:{port}" == serving["url"]
    assert {
        "port": "pass",
        "engine": "skipped",
        "engine-version": "skipped",
        "weights": "skipped",
    } == {event["name"]: event["outcome"] for event in events if event["event"] == "checked"}
