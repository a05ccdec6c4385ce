"""A stand-in for libnvidia-ml.so.1 and the machines it can be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = HERE / "cases"


def build(folder: Path, *defines: str) -> Path:
    """Compile the stub into *folder* and return the folder, to be put on LD_LIBRARY_PATH."""
    compiler = shutil.which("gcc")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("gcc is not installed")
    words = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]
    words += ["-Wl,-soname,libnvidia-ml.so.1", *defines]
    words += ["-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "stub.c")]
    subprocess.run([compiler, *words], check=True)
    return folder


def environment(folder: Path, case: str) -> dict[str, str]:
    """Return the variables that make a process see the machine *case* of tests/nvml/cases."""
    return {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML": str(CASES / f"{case}.conf")}
