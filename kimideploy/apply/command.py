"""Run somebody's command to its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from kimideploy.errors import MachineError


def run(argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
    """Return the exit code of *argv*, whose output goes to our stderr; raises MachineError.

    After *timeout* seconds it is killed.
    """
    try:
        done = subprocess.run(argv, env=dict(env), stdout=sys.stderr, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{argv[0]} did not end in {timeout:.0f} s", hint="--timeout") from error
    except OSError as error:
        raise MachineError(f"{argv[0]} can't be run: {error.strerror}") from error
    return done.returncode
