"""systemd of the system or of a user: the few words that are said to it, and what it answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.apply.home import UNIT, Scope
from kimideploy.errors import MachineError

#: what is asked of a unit
_ASKED = (
    "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "ExecMainCode",
    "MainPID", "StatusText", "UnitFileState", "ActiveEnterTimestamp", "InvocationID", "DropInPaths",
    "NeedDaemonReload", "ControlGroup", "Job",
)  # fmt: skip
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class State:
    """What systemd says of a unit."""

    said: Mapping[str, str]

    @property
    def active(self) -> str:
        """active, activating, deactivating, inactive, failed …"""
        return self.said.get("ActiveState", "")

    @property
    def sub(self) -> str:
        """running, start, auto-restart, dead …"""
        return self.said.get("SubState", "")

    @property
    def restarts(self) -> int:
        """How often it was started again by itself."""
        return int(self.said.get("NRestarts") or 0)

    @property
    def pid(self) -> int:
        """The main process, 0 for none."""
        return int(self.said.get("MainPID") or 0)

    @property
    def is_queued(self) -> bool:
        """Whether systemd has yet to do what it was asked for."""
        return self.said.get("Job", "") not in ("", "0")

    @property
    def is_up(self) -> bool:
        """Whether it runs, or is on its way; one that only waits to be tried again is not."""
        running = self.active in ("active", "activating") and self.sub != "auto-restart"
        return self.is_queued or running

    @property
    def is_enabled(self) -> bool:
        """Whether a boot starts it."""
        return self.said.get("UnitFileState") == "enabled"

    @property
    def known(self) -> bool:
        """Whether there is such a unit."""
        return self.said.get("LoadState") == "loaded"


class Systemd:
    """The manager of one scope. Every method raises MachineError with systemd's own words."""

    def __init__(self, scope: Scope) -> None:
        self._user = ["--user"] if scope == "user" else []

    def show(self, unit: str = UNIT) -> State:
        """Return what systemd says of *unit*."""
        asked = [word for name in _ASKED for word in ("-p", name)]
        lines = self._run("systemctl", "show", *asked, "--", unit).splitlines()
        return State(dict(line.partition("=")[::2] for line in lines))

    def reload(self) -> None:
        """Have systemd read the units again."""
        self._run("systemctl", "daemon-reload")

    def enable(self, *units: str) -> None:
        """Have *units* started at boot."""
        self._run("systemctl", "enable", "--quiet", "--", *units)

    def disable(self, *units: str) -> None:
        """Have *units* not started at boot; those that are not there are no trouble."""
        self._try("systemctl", "disable", "--quiet", "--", *units)

    def start(self, unit: str = UNIT, *, wait: bool = False) -> None:
        """Have *unit* started, or starting."""
        self._try("systemctl", "reset-failed", "--", unit)
        self._run("systemctl", "start", *([] if wait else ["--no-block"]), "--", unit)

    def stop(self, unit: str = UNIT) -> None:
        """Return when nothing of *unit* runs any more."""
        self._try("systemctl", "stop", "--", unit)
        self._try("systemctl", "reset-failed", "--", unit)

    def detach(
        self, unit: str, argv: Sequence[str], environment: Path | None = None,
        properties: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Have *argv* run as the transient *unit*, which outlives whoever asked for it.

        *environment* is a file of NAME=value. Why no words: systemd shows those to everybody, and
        a proxy's address may hold its password.
        """
        more = [f"--property={line}" for line in properties]
        more += [f"--property=EnvironmentFile={environment}"] if environment is not None else []
        self._run(
            "systemd-run", f"--unit={unit}", "--collect", "--quiet", "--no-ask-password",
            "--property=KillMode=mixed", "--property=TimeoutStopSec=5min", *more, "--", *argv,
        )  # fmt: skip

    def verify(self, unit: Path) -> str:
        """Return what systemd-analyze has to complain of in the file *unit*, or nothing."""
        if shutil.which("systemd-analyze") is None:
            return ""
        ended = self._ended("systemd-analyze", "verify", "--man=no", str(unit))
        # Why only these: it names problems of other units on the machine, too.
        lines = [line for line in ended.stderr.splitlines() if unit.name in line]
        return "\n".join(lines)

    def _run(self, program: str, *words: str) -> str:
        ended = self._ended(program, *words)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines()
            why = said[0] if said else f"exit {ended.returncode}"
            raise MachineError(
                f"{program} {words[0]}: {why}",
                hint="journalctl -xe on the host says more" if "--user" not in self._user else None,
            )
        return ended.stdout

    def _try(self, program: str, *words: str) -> None:
        self._ended(program, *words)

    def _ended(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [program, *self._user, *words]
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, check=False, env=_environment(),
                errors="replace", stdin=subprocess.DEVNULL, timeout=_PATIENCE,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise MachineError(
                f"{program} is not here: kimideploy keeps an engine running by systemd",
                hint="`kimideploy render shell` writes the command for a machine without it",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"{program} {words[0]} did not end in {_PATIENCE:.0f} s") from error


def _environment() -> dict[str, str]:
    """The environment in which a user's systemd is found, also where a session didn't say."""
    found = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    found.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    return found


def is_running() -> bool:
    """Return whether systemd is this machine's first process."""
    return Path("/run/systemd/system").is_dir()
