"""Only the engine that was started is called ready, and only one serve has a port at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kimideploy.apply.events import Event, Ready, Started
from kimideploy.apply.job import job
from kimideploy.apply.serve import serve
from kimideploy.errors import BusyError
from tests.flows import place
from tests.unit.engines.plans import CATALOG

STRANGER = Path(__file__).with_name("stranger.py")


def test_a_stranger_on_the_port_is_not_our_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that takes the port while the engine loads is named, and nothing is ready."""
    monkeypatch.setenv("TEST_ENGINE", "hangs")
    plan = place.planned(place.weights(tmp_path / "weights"))
    venv = place.environment(tmp_path / "venv")
    what = job(plan, CATALOG, venv=venv, log=tmp_path / "engine.log", once=True)
    port, sign = plan.launches[0].port, tmp_path / "now"
    words = [sys.executable, str(STRANGER), str(sign), str(port), plan.served_name]
    stranger = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        if isinstance(event, Started):
            sign.touch()

    try:
        with pytest.raises(BusyError) as busy:
            serve(what, tell)
    finally:
        stranger.kill()
        stranger.wait()

    assert f"(pid {stranger.pid})" in busy.value.message
    assert not [event for event in events if isinstance(event, Ready)]
    (started,) = [event for event in events if isinstance(event, Started)]
    assert not place.is_alive(started.pid)


def test_two_serves_of_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one serve loads, another with the same log is told so and starts nothing."""
    monkeypatch.setenv("TEST_ENGINE", "fine")
    plan = place.planned(place.weights(tmp_path / "weights"))
    venv = place.environment(tmp_path / "venv")
    what = job(plan, CATALOG, venv=venv, log=tmp_path / "engine.log", once=True)
    second: list[BusyError] = []
    inner: list[Event] = []

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            with pytest.raises(BusyError) as busy:
                serve(what, inner.append)
            second.append(busy.value)

    assert serve(what, tell).ok
    assert "another kimideploy" in second[0].message
    assert not [event for event in inner if isinstance(event, Started)]
