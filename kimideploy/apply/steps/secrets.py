"""The key that an endpoint beyond loopback asks for: made here, read by root alone."""

from __future__ import annotations

import secrets
from pathlib import Path

from kimideploy.apply.events import Change
from kimideploy.apply.files import write
from kimideploy.apply.steps.base import Step, Work


class SecretsStep(Step):
    """A key that is there is never changed, and none leaves the host. Not undone."""

    name = "secrets"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return which keys are missing, and which others can read."""
        changes = []
        for path in _paths(work):
            if not path.is_file():
                changes.append(Change(f"make a key in {path}, mode 0600"))
            elif path.stat().st_mode & 0o077:
                changes.append(Change(f"let only its owner read {path}"))
        return tuple(changes)

    def do(self, work: Work) -> None:
        """Make them, or close them."""
        for path in _paths(work):
            if path.is_file():
                path.chmod(0o600)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)


def _paths(work: Work) -> tuple[Path, ...]:
    return tuple(Path(one.file) for one in work.plan.launches[work.order.node].secrets)
