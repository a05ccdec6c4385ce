"""The wheels that kimideploy needs, for a machine that reaches no package index."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from kimideploy.errors import MachineError


def collect(folder: Path) -> list[Path]:
    """Return the wheels of kimideploy and all it depends on, written to *folder*.

    They are for this Python and this platform. Raises MachineError where pip can't make them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tool = _pip()
    words = [*tool, "wheel", "--quiet", "--wheel-dir", str(folder), _source()]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        why = next((line for line in said if line.startswith("ERROR:")), (said or ["?"])[-1])
        raise MachineError(
            f"pip can't collect the wheels: {why.removeprefix('ERROR: ')}",
            hint="the package index must be reachable",
        )
    return sorted(folder.glob("*.whl"))


def install(folder: Path) -> str:
    """Return the command that installs kimideploy from the wheels in *folder* / wheelhouse."""
    words = ["pip", "install", "--no-index", "--find-links", str(folder / "wheelhouse")]
    return shlex.join([*words, "kimideploy"])


def _pip() -> list[str]:
    """Return how pip is run: this Python's own, or uv's."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    if found.returncode == 0:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if uv is None:
        raise MachineError("neither pip nor uv is here to collect wheels", hint="install pip")
    return [uv, "tool", "run", "pip"]


def _source() -> str:
    """Return what pip builds kimideploy from: the folder it was installed from, or its version."""
    import json  # noqa: PLC0415
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415

    try:
        found = distribution("kimideploy")
    except PackageNotFoundError as error:
        raise MachineError("kimideploy is not installed, so its wheels are not known") from error
    origin = found.read_text("direct_url.json")
    if origin is not None:
        url = urlsplit(str(json.loads(origin).get("url", "")))
        if url.scheme == "file" and Path(unquote(url.path)).exists():
            return unquote(url.path)
    return f"kimideploy=={found.version}"
