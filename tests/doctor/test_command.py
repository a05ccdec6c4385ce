"""`kimideploy doctor` as it is typed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kimideploy.engines import complete
from kimideploy.facts.local import inspect_local
from kimideploy.facts.types import Aims
from kimideploy.planning.types import encode
from tests.doctor.cases import FOLDER, HERE, machine, merged
from tests.unit.engines.plans import CATALOG, plan

SOUND = HERE / "machines" / "8xh200.json"


def run(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Return how `kimideploy doctor` ended."""
    return subprocess.run(
        [sys.executable, "-m", "kimideploy", "doctor", *words],
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **env},
    )  # fmt: skip


def saved(folder: Path, patch: object) -> str:
    """Return the file of a machine that differs from the sound one."""
    path = folder / "facts.json"
    path.write_text(json.dumps(merged(machine(), patch)), encoding="utf-8")
    return str(path)


def test_a_sound_machine_is_0() -> None:
    """A saved machine is planned for and judged, and nothing is wrong."""
    done = run("--facts", str(SOUND), "--model-path", FOLDER)

    assert (0, "") == (done.returncode, done.stderr)
    assert "0 block, 0 warn, 0 note, 0 unknown" in done.stdout


def test_a_sick_machine_is_1(tmp_path: Path) -> None:
    """What blocks comes first, with why, fix and link, in 80 columns."""
    facts = saved(
        tmp_path, {"gpus": {3: {"recovery": "GPU reset"}}, "clock": {"synchronized": False}}
    )

    done = run("--facts", facts, "--model-path", FOLDER)

    lines = done.stdout.splitlines()
    assert 1 == done.returncode
    assert "gpu-recovery" in lines[2]
    assert "the driver asks for GPU reset" in done.stdout
    assert "fix: do that, or take another host" in done.stdout
    assert max(len(line) for line in lines if "https://" not in line) <= 80


def test_a_plan_is_judged_as_it_is(tmp_path: Path) -> None:
    """--plan judges that plan, not the one that would be made."""
    path = tmp_path / "plan.json"
    path.write_bytes(encode(complete(plan(gpu="h100-80", model_path=FOLDER), CATALOG)))

    done = run("--facts", str(SOUND), "--plan", str(path))

    assert 1 == done.returncode
    assert "the plan is for h100-80" in done.stdout.replace("\n" + " " * 23, " ")


def test_json_is_the_report(tmp_path: Path) -> None:
    """One object with every check; the exit code is the same."""
    facts = saved(tmp_path, {"gpus": {3: {"mig": True}}})

    done = run("--facts", facts, "--model-path", FOLDER, "--json", "--only", "gpu-mig")

    document = json.loads(done.stdout)
    assert 1 == done.returncode
    assert [("gpu-mig", "blocks")] == [(c["name"], c["outcome"]) for c in document["checks"]]


def test_nothing_fits_is_a_finding(tmp_path: Path) -> None:
    """A machine that is too small is told so, and examined all the same."""
    facts = saved(tmp_path, {"gpus": {"=": []}, "settings": {"numa_balancing": True}})

    done = run("--facts", facts, "--tier", "int4-h200", "--json")

    checks = {c["name"]: c["outcome"] for c in json.loads(done.stdout)["checks"]}
    assert 1 == done.returncode
    assert ("blocks", "warns") == (checks["fit"], checks["numa-balancing"])


def test_what_is_saved_is_judged_alike(tmp_path: Path) -> None:
    """--save writes the facts of this machine, and --facts comes to the same."""
    path = tmp_path / "plan.json"
    path.write_bytes(encode(complete(plan(model_path=str(tmp_path)), CATALOG)))
    facts = tmp_path / "facts.json"

    first = run(
        "--plan", str(path), "--save", str(facts), "--json", HF_ENDPOINT="http://127.0.0.1:9"
    )
    second = run("--plan", str(path), "--facts", str(facts), "--json")

    assert first.stdout == second.stdout
    assert 1 == first.returncode


def test_a_hub_that_hangs_is_unreachable() -> None:
    """A server that takes the connection and says nothing costs its deadline, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"http://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        facts = inspect_local(aims=Aims(reach=(target,)), only=("network",))

    assert "no" == (facts.reach or ())[0].state
    assert time.monotonic() - began < 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hardware", "8xH200"), "nobody can look at"),
        (("--explain", "gpu-mgi"), "did you mean `gpu-mig`"),
        (("--only", "nothing"), "no check is called"),
        (("--only", "all"), "no check is called"),
        (("--undo", "--facts", str(SOUND)), "stands alone"),
        (("--node", "9"), "--node 9"),
        (("--log", "/nowhere/at-all.log"), "can't be read"),
        (("--plan", "/nowhere/plan.json"), "can't be read"),
        (("--facts", "/nowhere/facts.json"), "can't be read"),
        (("--facts", str(SOUND), "--fix", "--yes"), "--facts is a file"),
        (("--facts", str(SOUND), "--host", "gpu1"), "both name the machine"),
        (("--log", "x.log", "--host", "gpu1"), "a file of this machine"),
        (("--facts", str(SOUND), "--model-path", FOLDER, "--node", "9"), "--node 9"),
    ],
)
def test_a_wrong_request_is_2(words: tuple[str, ...], said: str) -> None:
    """What is wrong is named."""
    done = run(*words)

    assert 2 == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_needs_no_machine() -> None:
    """Names for --skip-check, one a line, and as JSON."""
    rows: list[dict[str, Any]] = json.loads(run("--list", "--json").stdout)

    assert {"gpu-recovery", "shm", "port"} <= {row["name"] for row in rows}
    assert "gpu-recovery" in run("--list").stdout
    assert "why" in run("--explain", "gpu-recovery").stdout


def test_a_log_is_explained() -> None:
    """The cause, the line, the cure and the link; 0 when something was found."""
    log = HERE / "logs" / "sick" / "nccl-shm.log"

    done = run("--log", str(log))
    by_pipe = run("--log", "-", "--json", stdin=log.read_text("utf-8"))

    assert 0 == done.returncode
    assert done.stdout.startswith("the cause: /dev/shm is too small")
    assert ["nccl-shm"] == [one["id"] for one in json.loads(by_pipe.stdout)]


def test_a_healthy_log_is_1() -> None:
    """Nothing known is an answer, too."""
    done = run("--log", str(HERE / "logs" / "healthy" / "vllm.log"))

    assert 1 == done.returncode
    assert "no known failure" in done.stdout


def test_colours_of_a_log_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A log can't steer the terminal of whoever asks about it."""
    path = tmp_path / "engine.log"
    path.write_bytes(b"\x1b]0;owned\x07torch.OutOfMemoryError: CUDA out of memory. \x1b[31mTried\n")

    done = run("--log", str(path))

    assert "\x1b" not in done.stdout
    assert "gpu-oom" in done.stdout
