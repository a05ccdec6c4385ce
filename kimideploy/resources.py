"""Where the shipped data lies: in a checkout, an editable install and a wheel alike."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal


def shipped(kind: Literal["profiles", "templates"]) -> Path:
    """Return the shipped `profiles` or `templates` folder, installed or in a checkout."""
    installed = Path(str(files("kimideploy"))) / f"_{kind}"
    return installed if installed.is_dir() else Path(__file__).parents[1] / kind
