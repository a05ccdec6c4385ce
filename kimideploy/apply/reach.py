"""What the user that an engine runs as can reach, asked of the kernel as that user."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import MachineError

#: Why a program: access(2) answers for whoever asks, groups and mounts and all.
_ASK = """
import json, os, sys
closed = []
for path, mode in json.load(sys.stdin):
    if not os.access(path, mode):
        both = path, os.path.realpath(path)
        parents = [one[:at] or "/" for one in both for at, sign in enumerate(one) if sign == "/"]
        barred = [one for one in parents if not os.access(one, os.X_OK)]
        closed.append([path, barred[0] if barred else path])
json.dump(closed, sys.stdout)
"""
_PATIENCE = 60.0
#: bytes of a program in which its interpreter is named
_FIRST_LINE = 512


@dataclass(frozen=True, slots=True)
class Closed:
    """A path that can't be reached, and which part of it is closed."""

    path: str
    at: str


def closed_to(user: str, wanted: Sequence[tuple[Path, int]]) -> tuple[Closed, ...]:
    """Return what of *wanted*, paths with os.R_OK or os.X_OK, *user* can't reach; needs root."""
    try:
        group = pwd.getpwnam(user).pw_gid
        ended = subprocess.run(
            [sys.executable, "-I", "-c", _ASK],
            input=json.dumps([(str(path), mode) for path, mode in wanted]),
            capture_output=True, text=True, check=True, timeout=_PATIENCE,
            user=user, group=group, extra_groups=os.getgrouplist(user, group), cwd="/", env={},
        )  # fmt: skip
        found = json.loads(ended.stdout)
    except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        raise MachineError(f"what {user} can reach can't be found out: {error}") from error
    return tuple(Closed(path, at) for path, at in found)


def of_program(path: Path) -> Iterable[tuple[Path, int]]:
    """Yield what must be reached to run *path*: itself, and the interpreter that it names."""
    yield path, os.X_OK
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST_LINE).partition(b"\n")[0]
    except OSError:
        return
    words = first[2:].split() if first.startswith(b"#!") else []
    if words:
        yield Path(os.fsdecode(words[0])), os.X_OK
