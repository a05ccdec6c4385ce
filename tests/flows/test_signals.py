"""Ctrl-C and friends against the real command line, and all that it leaves: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flows import place

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")

#: seconds that no step of a test takes unless it hangs
LIMIT = 60


@contextmanager
def _serving(tmp_path: Path, mode: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`kimideploy serve` once its endpoint is proved, and its events by kind."""
    plan = place.saved(place.planned(place.weights(tmp_path / "weights")), tmp_path / "plan.json")
    argv, env = place.cli(
        "serve",
        f"--plan={plan}",
        f"--venv={place.environment(tmp_path / 'venv')}",
        f"--log={tmp_path / 'engine.log'}",
        "--json",
        *place.SMALL,
        TEST_ENGINE=mode,
    )
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen: dict[str, Any] = {}
        try:
            for line in process.stdout:
                event = json.loads(line)
                seen[event["event"]] = event
                if event["event"] == "serving":
                    break
            yield process, seen
        finally:
            process.kill()


def _worker(tmp_path: Path) -> int:
    for line in (tmp_path / "engine.log").read_text(encoding="utf-8").splitlines():
        if line.startswith("worker "):
            return int(line.split()[1])
    raise AssertionError("the engine has started no worker")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_engine_and_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    """Exit 130, and neither the engine nor a deaf worker in another session is left."""
    with _serving(tmp_path, "worker") as (process, seen):
        engine, worker = seen["started"]["pid"], _worker(tmp_path)
        assert [True, True] == [place.is_alive(pid) for pid in (engine, worker)]

        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)

    assert 130 == process.returncode, err
    assert [False, False] == [place.is_alive(pid) for pid in (engine, worker)]
    assert "interrupted" == json.loads(out.splitlines()[-2])["why"]


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """Who presses it twice gets it killed, well before the grace is over."""
    with _serving(tmp_path, "worker") as (process, _):
        worker = _worker(tmp_path)
        began = time.monotonic()

        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while "stopping" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)

    assert 130 == process.returncode
    assert not place.is_alive(worker)
    assert 4 > time.monotonic() - began


def test_an_engine_that_dies_while_it_serves_is_exit_5(tmp_path: Path) -> None:
    """The foreground command does not outlive what it stands for."""
    with _serving(tmp_path, "fine") as (process, seen):
        os.kill(seen["started"]["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=LIMIT)

    assert 5 == process.returncode
    died = next(e for e in map(json.loads, out.splitlines()) if e["event"] == "died")
    assert "was ended by SIGKILL" == died["how"]
    assert "SIGKILL" in err
    assert "Traceback" not in err
