"""One rig for all tests of hosts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.rig import Rig, down, missing, up

COUNT = 3


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """Three hosts."""
    lacking = missing()
    if lacking:
        told = f"no rig of hosts without {', '.join(lacking)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)
    # Why not pytest's own folders: file systems are mounted in it, and pytest tidies up there.
    with tempfile.TemporaryDirectory(prefix="kd-rig-") as name:
        made = up(COUNT, Path(name))
        try:
            for number in range(1, COUNT + 1):
                made.furnish(number)
            yield made
        finally:
            down(made)


@pytest.fixture
def host(rig: Rig) -> Iterator[str]:
    """Host 1, with nothing deployed on it."""
    rig.clean(1)
    yield rig.name(1)
    rig.clean(1)


@pytest.fixture
def both(rig: Rig) -> Iterator[list[str]]:
    """Hosts 2 and 3, with nothing deployed and no weights in their stores."""
    for number in (2, 3):
        rig.clean(number)
    yield [rig.name(2), rig.name(3)]
    for number in (2, 3):
        rig.clean(number)


@pytest.fixture
def plan(rig: Rig, tmp_path: Path) -> Path:
    """The file of a plan on the engine and the weights of the hosts."""
    return rig.plan(tmp_path)
