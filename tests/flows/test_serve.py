"""Serving with real processes: an engine in its own environment, real signals, a real port."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kimideploy.apply.events import (
    Checked,
    Died,
    Event,
    Judged,
    Noted,
    Planned,
    Progress,
    Ready,
    Said,
    Serving,
    Started,
    Stopped,
)
from kimideploy.apply.job import Job, job, steps
from kimideploy.apply.serve import serve
from kimideploy.conformance.verdict import Verdict
from kimideploy.errors import BusyError, EngineError, KimiError, MachineError, WeightsError
from kimideploy.planning.types import Secret
from tests.flows import place
from tests.unit.engines.plans import CATALOG


class QuickClock:
    """A clock that runs ten times as fast as the real one."""

    def now(self) -> float:
        """Return tenths of seconds."""
        return 10 * time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait a tenth of *seconds*."""
        time.sleep(seconds / 10)


@pytest.fixture
def ready(tmp_path: Path) -> Job:
    """A job whose engine, weights and port are all in order."""
    return _job(tmp_path, place.environment(tmp_path / "venv"))


def _job(tmp_path: Path, venv: Path) -> Job:
    found = place.planned(place.weights(tmp_path / "weights"))
    return job(found, CATALOG, venv=venv, log=tmp_path / "engine.log", once=True)


def _serve(
    what: Job, monkeypatch: pytest.MonkeyPatch, mode: str, clock: QuickClock | None = None
) -> tuple[list[Event], Verdict | KimiError]:
    """Return the events, and the verdict or the expected failure."""
    monkeypatch.setenv("TEST_ENGINE", mode)
    events: list[Event] = []
    try:
        return events, serve(what, events.append, clock=clock)
    except KimiError as error:
        return events, error


def _of(events: Sequence[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def _died(events: Sequence[Event]) -> Died:
    (found,) = [event for event in events if isinstance(event, Died)]
    return found


def _workers(log: Path) -> list[int]:
    lines = log.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("worker ")]


def test_a_good_engine_serves(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks, progress, readiness, smoke requests, endpoint, end: each in its turn."""
    events, verdict = _serve(ready, monkeypatch, "fine")

    assert isinstance(verdict, Verdict)
    assert verdict.ok
    kinds = [type(event) for event in events if not isinstance(event, (Said, Noted, Progress))]
    assert [Planned, *[Checked] * 5, Started, Ready] == kinds[:8]
    assert [Serving, Stopped] == [kind for kind in kinds if kind in (Serving, Stopped)]
    assert {"pass"} == {e.outcome for e in events if isinstance(e, Checked)}
    assert "functions.run_python:0" in [
        event.check.evidence for event in events if isinstance(event, Judged)
    ]


def test_progress_is_seen_in_a_bar_that_is_redrawn(
    ready: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours and carriage returns do not hide the shards."""
    events, _ = _serve(ready, monkeypatch, "fine")

    shards = [(e.done, e.total) for e in events if isinstance(e, Progress) and e.total]
    assert [(0, 4), (1, 4), (2, 4), (3, 4)] == shards


def test_an_engine_out_of_memory_is_explained(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known cause is told, not the general one that follows it, with the last lines."""
    events, error = _serve(ready, monkeypatch, "oom")

    assert isinstance(error, EngineError)
    died = _died(events)
    assert "a GPU ran out of memory while the engine ran" == died.cause
    assert "loading weights" == died.stage
    assert any("OutOfMemoryError" in line for line in died.lines)
    said = "vLLM ended with status 1 while loading weights: a GPU ran out of memory while the"
    assert f"{said} engine ran" == str(error)


def test_status_0_unasked_is_a_failure(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends by itself has failed, whatever it says."""
    events, error = _serve(ready, monkeypatch, "exits-0")

    assert isinstance(error, EngineError)
    assert "ended with status 0 though nobody asked it to" == _died(events).how


def test_the_same_line_again_is_no_life(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that only repeats itself never becomes ready, and nothing of it is left."""
    events, error = _serve(replace(ready, quiet=20), monkeypatch, "hangs", QuickClock())

    assert isinstance(error, EngineError)
    assert "no news in its log" in _died(events).how
    (started,) = [event for event in events if isinstance(event, Started)]
    assert not place.is_alive(started.pid)


def test_another_model_is_not_ready(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that serves something else is refused, by both names."""
    events, error = _serve(ready, monkeypatch, "wrong-model")

    assert isinstance(error, EngineError)
    assert "it serves another and not kimi-k2.7-code" in _died(events).how
    assert [] == _of(events, Ready)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("wrong-field", "reasoning"),
        ("no-parser", "content is clean"),
        ("wrong-id", "tool id"),
        ("breaks-off", "reasoning"),
    ],
)
def test_a_broken_promise_ends_the_engine(
    ready: Job, monkeypatch: pytest.MonkeyPatch, mode: str, name: str
) -> None:
    """A failed smoke request is a result; the engine does not stay up."""
    events, verdict = _serve(ready, monkeypatch, mode)

    assert isinstance(verdict, Verdict)
    assert name in [check.name for check in verdict.checks if check.outcome == "fail"]
    assert [] == _of(events, Serving)
    assert 1 == len(_of(events, Stopped))


def test_dying_under_the_first_request_is_dying(
    ready: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that breaks off because it died is reported dead, with the cause."""
    events, error = _serve(ready, monkeypatch, "dies-asked")

    assert isinstance(error, EngineError)
    assert "a GPU ran out of memory while the engine ran" == _died(events).cause


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize("mode", ["worker", "worker-left"])
def test_no_worker_outlives_the_engine(
    ready: Job, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A worker in a session of its own, deaf to SIGTERM, is killed with the engine or after it."""
    events, _ = _serve(ready, monkeypatch, mode, QuickClock())

    (worker,) = _workers(ready.log)
    assert not place.is_alive(worker)
    (stopped,) = [event for event in events if isinstance(event, Stopped)]
    assert worker in stopped.killed
    assert () == stopped.left


def test_a_taken_port_names_its_holder(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens there already is told before anything is started."""
    with socket.create_server(("127.0.0.1", ready.launch.port)):
        events, error = _serve(ready, monkeypatch, "fine")

    assert isinstance(error, BusyError)
    assert f"(pid {os.getpid()})" in str(error)
    assert [] == _of(events, Started)


def test_a_missing_shard_stops_before_the_launch(
    ready: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a model is not handed to an engine."""
    Path(ready.site.folder, "model-00002-of-00002.safetensors").unlink()

    events, error = _serve(ready, monkeypatch, "fine")

    assert isinstance(error, WeightsError)
    assert [] == _of(events, Started)


def test_a_denied_version_is_read_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version comes from the environment's own metadata, and 0.22.0 is refused."""
    what = _job(tmp_path, place.environment(tmp_path / "old", version="0.22.0"))

    events, error = _serve(what, monkeypatch, "fine")

    assert isinstance(error, MachineError)
    assert "0.22.0 must not be used here" in str(error)
    assert [] == _of(events, Started)


def test_a_key_reaches_the_engine_and_nothing_else(
    ready: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Read from its file for the engine's environment; no event, argv or dry run shows it."""
    poison = "s3cr3t-0123456789"
    (tmp_path / "api.key").write_text(f"{poison}\n", encoding="utf-8")
    secret = Secret(variable="VLLM_API_KEY", file=str(tmp_path / "api.key"))
    launch = msgspec.structs.replace(ready.launch, secrets=(secret,))
    what = replace(ready, launch=launch)

    events, verdict = _serve(what, monkeypatch, "fine")

    assert isinstance(verdict, Verdict)
    assert "key s3cr" in ready.log.read_text(encoding="utf-8")
    shown = [msgspec.json.encode(event).decode() for event in events] + steps(what)
    assert [] == [text for text in shown if poison in text]


def test_a_key_that_is_not_there_is_said(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    secret = Secret(variable="VLLM_API_KEY", file="/nowhere/api.key")
    launch = msgspec.structs.replace(ready.launch, secrets=(secret,))

    events, error = _serve(replace(ready, launch=launch), monkeypatch, "fine")

    assert isinstance(error, MachineError)
    assert [] == _of(events, Started)


def test_the_log_of_the_run_before_is_kept(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run does not take the first one's last words away; nobody else reads them."""
    ready.log.write_text("what happened before\n", encoding="utf-8")

    _serve(ready, monkeypatch, "exits-0")

    old = ready.log.with_name("engine.log.old")
    assert "what happened before\n" == old.read_text(encoding="utf-8")
    assert 0o600 == ready.log.stat().st_mode & 0o777
