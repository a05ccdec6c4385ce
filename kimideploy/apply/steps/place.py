"""The user the engine runs as, and the folders of a host."""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path

from kimideploy.apply.events import Change
from kimideploy.apply.home import USER
from kimideploy.apply.steps.base import Step, Work
from kimideploy.errors import MachineError

_PRIVATE = 0o700


class Place(Step):
    """A system user without a shell, and folders that nobody else may write. Never undone: they
    hold nothing that harms, and the next try needs them."""

    name = "user and folders"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what is missing."""
        changes = []
        if work.home.scope == "system" and not _is_known(USER):
            changes.append(Change(f"make the system user {USER}"))
        if work.home.scope == "user" and not _lingers():
            changes.append(Change("let this user's services run without a session (linger)"))
        for path, mode in work.home.folders:
            if not path.is_dir():
                changes.append(Change(f"make {path}"))
            elif _right(path, mode) != _now(path):
                changes.append(Change(f"let {path} have mode {_right(path, mode):04o}"))
        return tuple(changes)

    def do(self, work: Work) -> None:
        """Make them."""
        if work.home.scope == "system" and not _is_known(USER):
            _run("useradd", "--system", "--user-group", "--no-create-home", "--home-dir",
                 "/var/cache/kimideploy", "--shell", "/usr/sbin/nologin", USER)  # fmt: skip
        if work.home.scope == "user" and not _lingers():
            _run("loginctl", "enable-linger")
        for path, mode in work.home.folders:
            path.mkdir(parents=True, exist_ok=True)
            if _right(path, mode) != _now(path):
                path.chmod(_right(path, mode))


def _now(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def _right(path: Path, mode: int) -> int:
    """The mode a folder should have: nobody else writes, and others enter what they need."""
    if mode == _PRIVATE:
        return _now(path) & ~0o077
    return (_now(path) & ~0o022) | 0o755


def _is_known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _lingers() -> bool:
    import os  # noqa: PLC0415

    return Path(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}").exists()


def _run(*argv: str) -> None:
    try:
        ended = subprocess.run(
            argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise MachineError(f"{argv[0]} is not on this host") from error
    if ended.returncode != 0:
        raise MachineError(f"{argv[0]}: {ended.stderr.strip() or ended.returncode}")
