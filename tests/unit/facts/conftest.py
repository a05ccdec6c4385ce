"""The probe as it is used: a program that prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from kimideploy.facts.probe import script
from kimideploy.facts.types import HostFacts
from tests import nvml

PROBE = script()
#: where sh and sleep are, and no engine
SYSTEM_PATH = "/usr/bin:/bin"


def run_probe(
    *options: str,
    python: Sequence[str] = (sys.executable,),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> HostFacts:
    """Pipe the probe to a Python the way a remote host gets it, and decode strictly."""
    plain = {"PATH": SYSTEM_PATH, "HOME": os.environ.get("HOME", "/")} | dict(env or {})
    done = subprocess.run(
        [*python, "-", *options],
        input=PROBE,
        capture_output=True,
        text=True,
        timeout=60,
        env=plain,
        cwd=cwd,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return msgspec.convert(json.loads(done.stdout), HostFacts)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in for today's driver."""
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in for a driver that lacks what pynvml asks for."""
    return nvml.build(tmp_path_factory.mktemp("old-nvml"), "-DOLD_DRIVER")


@pytest.fixture(scope="session")
def machine(stub: Path) -> Callable[[str], HostFacts]:
    """Return the facts of a machine of tests/nvml/cases, through the real pynvml."""

    def probed(case: str) -> HostFacts:
        return run_probe(env=nvml.environment(stub, case))

    return probed
