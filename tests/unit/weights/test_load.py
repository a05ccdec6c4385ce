"""What reading weights will be like: the file system by its mount, the rate by reading."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kimideploy.facts.filesystems import kind_of
from kimideploy.facts.probe import folder
from kimideploy.weights import load

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw shared:2 - nfs4 server:/x rw,vers=4.2
31 30 0:41 / /data/my\\040models rw - lustre mds@tcp:/fs rw
32 22 0:42 / /data2 rw - xfs /dev/sdb rw
33 32 0:43 / /data2 rw - wekafs backend rw
broken line
34 22 0:44 / /fuse rw - fuse.s3fs s3fs rw
"""


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/home/x", "ext4", "local"),
        ("/data/x", "nfs4", "network"),
        ("/data/my models/x", "lustre", "network"),
        ("/data2", "wekafs", "network"),
        ("/dataset", "ext4", "local"),
        ("/fuse/bucket", "fuse.s3fs", "network"),
    ],
)
def test_mounts(path: str, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest mount wins, of two on one folder the later; escapes are read."""
    monkeypatch.setattr(folder, "read_or", lambda _: MOUNTS)
    monkeypatch.setattr(os.path, "realpath", str)

    assert name == folder.filesystem(path)
    assert kind == kind_of(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tmpfs", "memory"), ("overlay", "overlay"), (None, "local"), ("btrfs", "local"),
     ("9p", "network"), ("fuse.gpfs", "network"), ("fuseblk", "local")],
)  # fmt: skip
def test_kinds(name: str | None, kind: str) -> None:
    """What is not known is taken for a disk."""
    assert kind == kind_of(name)


def test_a_rate_is_measured(tmp_path: Path) -> None:
    """Reading tells a rate, and from it how long all of it takes."""
    (tmp_path / "a").write_bytes(bytes(8 << 20))
    found = load.look(tmp_path, [("a", 8 << 20), ("gone", 5)], measure=True)

    assert found.rate is not None
    assert found.seconds == ((8 << 20) + 5) / found.rate


def test_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A slow network file system is told with the flag and the deadline."""
    monkeypatch.setattr(load, "filesystem", lambda _: "nfs4")
    monkeypatch.setattr(load, "read_rate", lambda *_, **__: 100e6)
    notes = " ".join(load.look(tmp_path, [("a", 595_000_000_000)], measure=True).notes)

    assert "--safetensors-load-strategy prefetch" in notes
    assert "reading takes 99 min" in notes


def test_nothing_to_read(tmp_path: Path) -> None:
    """Without a file there is no rate, and no guess at one."""
    assert load.look(tmp_path, [], measure=True).rate is None
