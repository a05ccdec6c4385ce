"""Where a host keeps what kimideploy put there: one place for the system, one for a user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scope = Literal["system", "user"]

#: the one unit of a host: whatever model it serves, so that a rollback may change the model
UNIT = "kimideploy.service"
#: who the engine runs as
USER = "kimideploy"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one scope. `system` needs root; `user` is all below a home folder."""

    scope: Scope
    #: releases, runs, journal, lock
    state: Path
    #: kimideploy itself and the engines' environments
    programs: Path
    #: secrets and the site's own settings
    settings: Path
    units: Path
    #: gone after a boot: what a running engine says of itself
    runtime: Path

    @property
    def releases(self) -> Path:
        """One folder for each release, by its number."""
        return self.state / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that was proved last."""
        return self.state / "current"

    @property
    def pending(self) -> Path:
        """What is being tried: which release, and which one to go back to."""
        return self.state / "pending.json"

    @property
    def runs(self) -> Path:
        """The events of each run of apply."""
        return self.state / "runs"

    @property
    def journal(self) -> Path:
        """What was done, when, by whom."""
        return self.state / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """The lock that whoever changes this host holds."""
        return self.state / "lock"

    @property
    def models(self) -> Path:
        """The store of weights."""
        return self.state / "models"

    @property
    def incoming(self) -> Path:
        """Where bundles are sent to."""
        return self.state / "incoming"

    @property
    def unit(self) -> Path:
        """The engine's unit."""
        return self.units / UNIT

    @property
    def standing(self) -> Path:
        """What the running engine said of itself last."""
        return self.runtime / "standing.json"

    def engine(self, name: str) -> Path:
        """Return the environment of an engine at one version."""
        return self.programs / "engines" / name

    @property
    def folders(self) -> tuple[tuple[Path, int], ...]:
        """Return every folder that must be there, with its mode."""
        return (
            (self.state, 0o755),
            (self.releases, 0o755),
            (self.runs, 0o700),
            (self.models, 0o755),
            (self.programs, 0o755),
            (self.programs / "engines", 0o755),
            (self.settings, 0o755),
            (self.units, 0o755),
        )


def home(scope: Scope | None = None) -> Home:
    """Return the Home of this process: root's is the system's, everybody else has their own."""
    scope = scope or ("system" if os.geteuid() == 0 else "user")
    if scope == "system":
        return Home(
            scope=scope,
            state=Path("/var/lib/kimideploy"),
            programs=Path("/opt/kimideploy"),
            settings=Path("/etc/kimideploy"),
            units=Path("/etc/systemd/system"),
            runtime=Path("/run/kimideploy"),
        )
    import pwd  # noqa: PLC0415

    # Why not $HOME and XDG_*: a session over SSH and a unit, with a HOME of its own, must agree.
    top = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    data = top / ".local" / "share" / "kimideploy"
    return Home(
        scope=scope,
        state=data,
        programs=data / "programs",
        settings=top / ".config" / "kimideploy",
        units=top / ".config" / "systemd" / "user",
        runtime=Path(f"/run/user/{os.geteuid()}") / "kimideploy",
    )
