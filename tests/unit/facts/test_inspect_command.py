"""`kimideploy inspect` from its options to its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from kimideploy.facts.types import SCHEMA, HostFacts
from kimideploy.views.inspect import as_json
from tests import nvml


def inspect(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as its users do, in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "kimideploy", "inspect", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "80"} | (env or {}),
        check=False,
    )


def test_unknown_parts_are_no_failure(stub: Path) -> None:
    """A machine with a lost GPU is inspected, and the answer is yes."""
    done = inspect(env=nvml.environment(stub, "lost"))

    assert (0, "") == (done.returncode, done.stderr)
    assert "GPU 6  GPU is lost" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_json_replays_as_the_same_table(stub: Path, tmp_path: Path) -> None:
    """What --json printed is shown by --facts, on any machine, as the machine it was."""
    printed = inspect("--json", env=nvml.environment(stub, "8xa100-mig"))
    facts = msgspec.json.decode(printed.stdout, type=HostFacts)
    path = tmp_path / "facts.json"
    path.write_text(printed.stdout, encoding="utf-8")

    assert [5] == [gpu.index for gpu in facts.gpus if gpu.mig]
    assert printed.stdout == inspect("--facts", str(path), "--json").stdout
    assert "GPU 5  MIG is on" in inspect("--facts", str(path)).stdout


def test_venv_that_is_none_is_said(tmp_path: Path) -> None:
    """A wrong --venv is a part that is unknown."""
    done = inspect("--json", "--venv", str(tmp_path))

    assert 0 == done.returncode
    assert f"engines in {tmp_path}" in {gap["what"] for gap in json.loads(done.stdout)["unknown"]}


def test_facts_of_another_schema_are_refused(tmp_path: Path) -> None:
    """Facts that this version can't read are a wrong request, said without a traceback."""
    path = tmp_path / "facts.json"
    path.write_text(as_json(HostFacts()).replace(SCHEMA, "kimideploy.facts/0"), encoding="utf-8")
    done = inspect("--facts", str(path))

    assert 2 == done.returncode
    assert "" == done.stdout
    assert "schema" in done.stderr
    assert "Traceback" not in done.stderr
