"""A hub, a store and a pull that does not wait long between its tries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from kimideploy.planning.types import CodePin
from kimideploy.weights.events import Event, Moved
from kimideploy.weights.manifest import OWN
from kimideploy.weights.pull import Pulled, pull
from kimideploy.weights.resolve import Ways
from kimideploy.weights.selection import Wanted
from tests.hub.repos import kimi
from tests.hub.server import Hub, running

REPO = "moonshotai/Kimi-Nano"


@dataclass
class Bench:
    """A hub with a small Kimi, and a store to pull it into."""

    hub: Hub
    folder: Path
    top: Path
    commit: str
    repo: str = REPO
    events: list[Event] = field(default_factory=list)

    def pull(
        self,
        *,
        wanted: Wanted | None = None,
        top: Path | None = None,
        code: tuple[CodePin, ...] | None = None,
        interrupt: type[Any] | None = None,
        **ways: Any,
    ) -> Pulled:
        """Pull, with its events kept; ways as in `Ways`.

        The first event of the kind *interrupt* is as if Ctrl-C came with it.
        """
        options = {"backoff": 0.001, "stall": 5.0, "workers": 4, **ways}
        self.events = []
        what = replace(wanted or Wanted(self.repo), code=code)

        def tell(event: Event) -> None:
            self.events.append(event)
            if interrupt is not None and isinstance(event, interrupt):
                raise KeyboardInterrupt

        return pull(what, top or self.top, Ways(**options), tell)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def told(self) -> str:
        """Return what was told but the progress, as one text."""
        return " ".join(map(str, (e for e in self.events if not isinstance(e, Moved))))

    def grown(self, **made: Any) -> str:
        """Write the repository anew, *made* as in `kimi`; returns its commit."""
        self.folder = kimi(self.folder.with_name(f"{self.folder.name}x"), **made)
        self.commit = self.hub.add(self.repo, self.folder)
        return self.commit


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Yield a hub with a Kimi of four shards, and an empty store."""
    folder = kimi(tmp_path / "origin")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield Bench(hub, folder, tmp_path / "store", hub.add(REPO, folder))


def missing_part(lacks: bool, why: str) -> None:
    """Skip the test where a real part is missing; under CI that is a failure."""
    if lacks:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


def mount(*words: str) -> None:
    """Mount as the words say, which only root can."""
    missing_part(os.geteuid() != 0, "mounting needs root")
    ended = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    missing_part(ended.returncode != 0, f"mount: {ended.stderr}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of its own with 300 MiB, which only root can make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=300m", "none", str(disk))
    yield disk
    subprocess.run(["umount", disk], check=True)


@contextmanager
def disk(
    folder: Path, kind: str, *, size: int = 600 << 20, image: Path | None = None
) -> Iterator[Path]:
    """Yield a file system of its own, mounted below *folder*; *image* is one that exists."""
    place = folder / f"{kind}-disk"
    if image is None:
        image = folder / f"{kind}-image"
        missing_part(shutil.which(f"mkfs.{kind}") is None, f"mkfs.{kind} is not installed")
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    place.mkdir(exist_ok=True)
    mount("-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below *folder* but our own by its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != OWN
    }


def leftovers(top: Path) -> list[str]:
    """Return what a finished pull must not leave: parts, ledgers, staging folders."""
    return [
        path.relative_to(top).as_posix()
        for path in top.rglob("*")
        if path.suffix in (".part", ".ledger", ".pull", ".new") or path.name == "lock"
    ]


def mismatches(folder: Path, repo: str, commit: str, url: str) -> list[Any]:
    """Return what the hub's own client finds wrong in *folder*: the oracle."""
    from huggingface_hub import HfApi  # noqa: PLC0415  HF_HOME is set before it is imported

    found = HfApi(endpoint=url).verify_repo_checksums(repo, local_dir=folder, revision=commit)
    assert found.checked_count > 0
    return list(found.mismatches)


@pytest.fixture
def store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store that the commands use."""
    monkeypatch.setenv("KIMIDEPLOY_MODELS", str(bench.top))
    return bench.top


def plain(text: str) -> str:
    """Return *text* on one line."""
    return " ".join(text.split())


def begin(bench: Bench, *more: str) -> subprocess.Popen[str]:
    """Start a pull as a process of its own."""
    words = ("pull", bench.repo, "--to", str(bench.top), "--json", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "kimideploy", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
