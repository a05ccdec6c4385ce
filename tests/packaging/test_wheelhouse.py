"""A wheelhouse installs kimideploy where no package index is to be reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kimideploy import __version__
from kimideploy.apply.wheelhouse import collect


def test_installed_from_the_wheelhouse_alone(tmp_path: Path) -> None:
    """pip finds everything in the folder, and the program runs."""
    wheels = collect(tmp_path / "wheelhouse")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run(
        [
            *(binaries / "python", "-m", "pip", "install", "--quiet", "--no-index"),
            *("--find-links", tmp_path / "wheelhouse", "kimideploy"),
        ],
        check=True,
    )
    said = subprocess.run(
        [binaries / "kimideploy", "--version"], capture_output=True, text=True, check=True
    )

    assert f"kimideploy {__version__}\n" == said.stdout
    assert [f"kimideploy-{__version__}-py3-none-any.whl"] == [
        path.name for path in wheels if path.name.startswith("kimideploy")
    ]
    assert [path for path in wheels if path.name.startswith("huggingface_hub")]
