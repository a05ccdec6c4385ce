"""What stops kimideploy from answering: one tree, one exit code a branch.

    KimiError
    ├── RequestError     2   flags, YAML, a hardware string
    ├── MachineError     3   unreachable, driver, permission, missing program
    ├── WeightsError     4   integrity, space, gated repository
    ├── EngineError      5   the engine failed or never became ready
    └── BusyError        6   a lock or a port is held by someone else

"No" is not here: a plan that does not fit is a result (exit 1), see planning.NoFit.
"""

from __future__ import annotations


class KimiError(Exception):
    """An expected failure: a sentence, an optional hint, and the exit code of its branch."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(KimiError):
    """The request is wrong: a flag, a YAML file, a hardware string."""

    exit_code = 2


class MachineError(KimiError):
    """The machine refused: unreachable, no driver, no permission, a program is missing."""

    exit_code = 3


class WeightsError(KimiError):
    """The weights or the hub refused: integrity, space, a gated repository."""

    exit_code = 4


class EngineError(KimiError):
    """The engine failed or never became ready."""

    exit_code = 5


class BusyError(KimiError):
    """Someone else holds it: a lock, a port."""

    exit_code = 6
