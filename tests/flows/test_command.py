"""`kimideploy serve` as its users run it: exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from kimideploy.engines.site import FIRST_PART
from tests.flows import place

#: seconds that no command takes unless it hangs
LIMIT = 60


def _run(*words: str, mode: str = "fine", **env: str) -> subprocess.CompletedProcess[str]:
    argv, env = place.cli(*words, TEST_ENGINE=mode, **env)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.fixture
def serve(tmp_path: Path) -> list[str]:
    """The words that serve a good engine once."""
    plan = place.planned(place.weights(tmp_path / "weights"))
    return [
        "serve",
        f"--plan={place.saved(plan, tmp_path / 'plan.json')}",
        f"--venv={place.environment(tmp_path / 'venv')}",
        f"--log={tmp_path / 'engine.log'}",
        "--once",
        *place.SMALL,
    ]


def _port(serve: list[str]) -> int:
    text = Path(serve[1].removeprefix("--plan=")).read_text(encoding="utf-8")
    return int(json.loads(text)["launches"][0]["port"])


def test_only_the_endpoint_goes_to_stdout(serve: list[str]) -> None:
    """A script reads the URL, a person the rest."""
    done = _run(*serve)

    assert 0 == done.returncode, done.stderr
    assert f"http://127.0.0.1:{_port(serve)}/v1\n" == done.stdout
    for said in ("loading weights", "ready", "functions.run_python:0", "message.reasoning"):
        assert said in done.stderr
    assert "\x1b" not in done.stderr


def test_events_are_json_lines(serve: list[str]) -> None:
    """Each line of stdout is an object that says its kind; stderr is silent."""
    done = _run(*serve, "--json")

    kinds = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert ["examined", "planned", "stopped"] == [*kinds[:2], kinds[-1]]
    assert {"checked", "started", "progress", "ready", "judged", "serving"} <= set(kinds)
    assert "" == done.stderr


@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [
        ("wrong-id", 1, "call_0"),
        ("oom", 5, "a GPU ran out of memory"),
        ("exits-0", 5, "nobody asked it to"),
        ("wrong-model", 5, "it serves another"),
    ],
)
def test_an_engine_that_fails_has_its_code(
    serve: list[str], mode: str, code: int, said: str
) -> None:
    """A broken promise is a result, a broken engine a failure; neither is a traceback."""
    done = _run(*serve, mode=mode)

    assert code == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "" == done.stdout


def test_a_failure_is_one_object_with_json(serve: list[str]) -> None:
    """The last lines are in the events, the reason on stderr."""
    done = _run(*serve, "--json", mode="oom")

    assert 5 == json.loads(done.stderr)["error"]["exit_code"]
    died = next(e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "died")
    assert "a GPU ran out of memory while the engine ran" == died["cause"]


def test_a_taken_port_is_6(serve: list[str]) -> None:
    """The hint is a flag that helps."""
    with socket.create_server(("127.0.0.1", _port(serve))):
        done = _run(*serve)

    assert 6 == done.returncode
    assert "--port" in done.stderr


def test_half_a_model_is_4(serve: list[str], tmp_path: Path) -> None:
    """The missing file is named."""
    (tmp_path / "weights" / "model-00001-of-00002.safetensors").write_bytes(b"")

    done = _run(*serve)

    assert 4 == done.returncode
    assert "model-00001-of-00002.safetensors" in done.stderr


def test_no_engine_is_3(serve: list[str]) -> None:
    """And the hint says how to get it."""
    done = _run(*(word for word in serve if not word.startswith("--venv")), PATH="/usr/bin:/bin")

    assert 3 == done.returncode
    assert "uv pip install vllm" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port=9"], "--port is decided by the plan"),
        (["--node=1"], "counted from 0"),
        (["--rehearse=sglang"], "no way to rehearse"),
        (["--venv=/nowhere"], "no Python environment"),
    ],
)
def test_a_wrong_request_is_2(serve: list[str], words: list[str], said: str) -> None:
    """Nothing was started for it."""
    done = _run(*serve, *words)

    assert 2 == done.returncode
    assert said in done.stderr


def test_a_plan_that_is_none_is_2(tmp_path: Path) -> None:
    """The place of the fault is named."""
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")

    done = _run("serve", f"--plan={tmp_path / 'plan.json'}")

    assert 2 == done.returncode
    assert f"error: {tmp_path / 'plan.json'}:1:1" in done.stderr


def test_the_doctor_is_asked_first(serve: list[str]) -> None:
    """A machine without the GPUs of the plan is refused before anything starts, and how to go on
    all the same is said."""
    words = [word for word in serve if word not in place.SMALL]

    done = _run(*words)

    assert 3 == done.returncode
    assert "no GPU can be reached" in done.stderr
    assert "--skip-check gpu-count" in done.stderr
    assert not Path(serve[3].removeprefix("--log=")).exists()


def test_what_is_skipped_is_told(serve: list[str]) -> None:
    """The operator's word is obeyed, and the finding is shown all the same."""
    done = _run(*serve)

    assert 0 == done.returncode
    assert "skipped: no GPU can be reached" in done.stderr


def test_a_check_that_is_none_is_2(serve: list[str]) -> None:
    """A slip of the pen skips nothing silently."""
    done = _run(*serve, "--skip-check=gpu-cuont")

    assert 2 == done.returncode
    assert "did you mean `gpu-count`" in done.stderr


def test_what_does_not_fit_is_1() -> None:
    """As `plan` says it, on stdout."""
    done = _run("serve", "--hardware=4xH200", "--tier=int4-h200")

    assert 1 == done.returncode
    assert "Traceback" not in done.stderr
    assert "" != done.stdout


def test_a_dry_run_shows_the_very_words_and_starts_nothing(serve: list[str]) -> None:
    """argv and environment, and no log file."""
    done = _run(*serve, "--dry-run", "--json")

    assert 0 == done.returncode
    told = json.loads(done.stdout)
    plan = json.loads(Path(serve[1].removeprefix("--plan=")).read_text(encoding="utf-8"))
    assert plan["launches"][0]["argv"] == told["argv"]
    assert dict(plan["launches"][0]["env"]) == told["env"]
    assert not Path(serve[3].removeprefix("--log=")).exists()


def test_a_rehearsal_without_gpus_is_of_the_usual_machine() -> None:
    """The README's first command needs nothing; what it would run is told."""
    done = _run("serve", "--rehearse", "--dry-run")

    assert 0 == done.returncode, done.stderr
    assert "kimideploy.rehearsal" in done.stdout
    assert FIRST_PART not in done.stdout


def test_a_rehearsal_may_be_of_any_machine() -> None:
    """Two nodes are rehearsed by the first of them."""
    done = _run("serve", "--rehearse", "--hardware=2x8xH100-80GB", "--dry-run")

    assert 0 == done.returncode, done.stderr
    assert "--pipeline-parallel-size 2" in done.stdout
