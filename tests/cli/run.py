"""Run `kimideploy` in this process, or as a process of its own."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner, Result

from kimideploy.cli.app import app


def run(*words: str, stdin: str | None = None) -> Result:
    """Return exit code, stdout and stderr of the command line."""
    return CliRunner().invoke(app, list(words), input=stdin, prog_name="kimideploy")


def spawn(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Return the same of a real process."""
    return subprocess.run(
        [sys.executable, "-m", "kimideploy", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=env,
    )
