"""Verify: what changed is found and named, what did not is not read, a repair fetches just that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kimideploy.weights.events import Damaged, Event, Told, Verified
from kimideploy.weights.pull import Pulled, repair
from kimideploy.weights.resolve import Ways
from kimideploy.weights.structure import faults
from kimideploy.weights.verify import damaged, verify
from tests.hub.repos import kimi, safetensors, shards
from tests.pull.conftest import REPO, Bench, mismatches

SECOND = shards(4)[1]


@pytest.fixture
def pulled(bench: Bench) -> Pulled:
    """Return a checkpoint in the store."""
    return bench.pull()


def looked(pulled: Pulled, *, full: bool = False) -> tuple[list[Damaged], Verified, list[Event]]:
    """Return what a verification found, and its end."""
    events = list(verify(pulled.folder, pulled.manifest, full=full))
    last = events[-1]
    assert isinstance(last, Verified)
    return [event for event in events if isinstance(event, Damaged)], last, events


def test_unchanged_is_not_read(pulled: Pulled) -> None:
    """What a pull proved is taken as it is; --full reads every byte."""
    assert ([], 0, True) == (looked(pulled)[0], looked(pulled)[1].hashed, looked(pulled)[1].ok)
    assert pulled.manifest.size == looked(pulled, full=True)[1].hashed


def flipped(path: Path) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def folder_instead(path: Path) -> None:
    """Put a folder where a file was."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flipped, "its hash is not the hub's"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "bytes, not"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes, not"),
    "gone": (lambda path: path.unlink(), "missing"),
    "a folder": (folder_instead, "can't be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_repaired(bench: Bench, pulled: Pulled, kind: str) -> None:
    """Each kind of damage is told with its file; a repair fetches that file and no other."""
    how, said = DAMAGE[kind]
    path = pulled.folder / SECOND
    size = path.stat().st_size
    how(path)
    found, last, _ = looked(pulled)
    assert [SECOND] == [event.path for event in found]
    assert said in found[0].why
    assert not last.ok
    if path.is_dir():
        path.rmdir()
    bench.hub.log.clear()
    fetched = repair(
        pulled.folder, pulled.manifest, damaged(pulled.folder, pulled.manifest),
        Ways(backoff=0.01), bench.events.append,
    )  # fmt: skip

    assert size == fetched == bench.hub.sent()
    assert looked(pulled, full=True)[1].ok
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_kept_time_does_not_hide(pulled: Pulled) -> None:
    """A file cut short with its old time is found by its size, a flipped bit by --full."""
    path = pulled.folder / SECOND
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not looked(pulled)[1].ok


def test_strangers_are_told(pulled: Pulled) -> None:
    """A file that no manifest names is no damage, but worth a word: an engine may load it."""
    (pulled.folder / "model-extra.safetensors").write_bytes(b"x")
    _, last, events = looked(pulled)

    assert last.ok
    assert ["model-extra.safetensors is none of the checkpoint's files"] == [
        event.text for event in events if isinstance(event, Told)
    ]


def test_a_record_that_lies(pulled: Pulled) -> None:
    """A record that can't be read means that everything is read."""
    (pulled.folder / ".kimideploy" / "seen.json").write_text("[1, 2")

    assert pulled.manifest.size == looked(pulled)[1].hashed


def names(folder: Path) -> list[str]:
    """Return the shards in *folder*."""
    return sorted(path.name for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / shards(4)[0]).write_bytes(b"\xff" * 100), "is no safetensors file"),
        (lambda f: os.truncate(f / shards(4)[0], 90_000), "room for"),
        (lambda f: safetensors(f / shards(4)[0], "other", b"x"), "is in no shard"),
        (lambda f: safetensors(f / shards(4)[0], "model.layers.1.weight", b"x"), "is in model-"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "is no index"),
    ],
)  # fmt: skip
def test_structure(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    """Headers that are cut, tensors that are missing, twice or elsewhere are told."""
    folder = kimi(tmp_path / "kimi")
    assert [] == faults(folder, names(folder))
    change(folder)

    assert said in " ".join(faults(folder, names(folder)))


def test_parts_of_a_gguf(tmp_path: Path) -> None:
    """A part that the others' numbers promise is missed by its name."""
    there = [f"x-{n:05d}-of-00003.gguf" for n in (1, 3)]
    for name in there:
        (tmp_path / name).write_bytes(b"GGUF")

    assert "x-00002-of-00003.gguf is missing" in " ".join(faults(tmp_path, there))
