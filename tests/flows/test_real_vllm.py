"""The main job on the real vLLM: its argv parser, its log, its routes, its processes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flows import place
from tests.judges import VLLM

#: seconds; two busy cores took 40
LIMIT = 600


@pytest.fixture(scope="module")
def venv() -> Path:
    """The environment of the real vLLM, built if it is missing."""
    VLLM.build()
    return VLLM.bin_dir.parent


def _words(venv: Path, tmp_path: Path) -> list[str]:
    return [
        "serve",
        "--rehearse=vllm",
        "--hardware=8xH200",
        f"--venv={venv}",
        f"--port={place.free_port()}",
        f"--log={tmp_path / 'vllm.log'}",
        "--once",
        "--json",
    ]


def _run(words: list[str], home: Path) -> tuple[int, list[dict[str, Any]], str]:
    argv, env = place.cli(*words, XDG_CACHE_HOME=str(home))
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_main_job_on_the_real_engine(venv: Path, tmp_path: Path) -> None:
    """Planned words, real readiness, reasoning in its field, an id the model knows; then an end."""
    code, events, err = _run(_words(venv, tmp_path), tmp_path)

    assert 0 == code, err
    checked = {event["name"]: event["outcome"] for event in events if event["event"] == "checked"}
    assert {"command", "port", "engine", "engine-version"} == {
        name for name, outcome in checked.items() if outcome == "pass"
    }
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert {"starting", "sizing the cache"} <= set(stages)
    assert "opening the server" == stages[-1]
    judged = {e["check"]["name"]: e["check"] for e in events if e["event"] == "judged"}
    assert ["pass", "pass", "pass"] == [
        judged[name]["outcome"] for name in ("reasoning", "tool call", "tool id")
    ]
    assert judged["tool id"]["evidence"].startswith("functions.run_python:")
    assert {"event": "stopped"} == events[-1]


def test_a_flag_it_does_not_know_is_explained(venv: Path, tmp_path: Path) -> None:
    """The real parser refuses, and its own words lead to the cause."""
    words = [*_words(venv, tmp_path), "--engine-arg=--no-such-flag"]

    code, events, err = _run(words, tmp_path)

    assert 5 == code
    assert "Traceback" not in err
    (died,) = [event for event in events if event["event"] == "died"]
    assert str(died["cause"]).startswith("this version does not know a flag")
    assert any("--no-such-flag" in line for line in died["lines"])


def test_ctrl_c_while_it_loads_leaves_nothing(venv: Path, tmp_path: Path) -> None:
    """The server, its engine core and its workers are gone, wherever they were in their start."""
    argv, env = place.cli(*_words(venv, tmp_path), XDG_CACHE_HOME=str(tmp_path))
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # Why this line: the engine core is a process of its own by then.
            if "Initializing a V1 LLM engine" in line:
                break
        family = place.descendants(process.pid)

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)

    assert 130 == process.returncode
    assert 2 <= len(family)
    assert [] == [pid for pid in family if place.is_alive(pid)]
