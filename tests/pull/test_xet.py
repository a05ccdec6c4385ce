"""The real hf-xet with its local store: ranges through it, proved like every other byte."""

from __future__ import annotations

import random
from pathlib import Path

import hf_xet
import pytest

from kimideploy.weights.events import Damaged, Published
from kimideploy.weights.routes import Routes
from kimideploy.weights.selection import Wanted
from tests.hub.repos import safetensors
from tests.hub.server import Fault
from tests.pull.conftest import Bench, mismatches

SIZE = 12_000_000
REPO = "org/xet"


@pytest.fixture
def store(bench: Bench, tmp_path: Path) -> Path:
    """Publish a repository whose shards lie in a local xet store, too; returns the store."""
    folder, cas = tmp_path / "xet", tmp_path / "cas"
    folder.mkdir()
    cas.mkdir()
    chance = random.Random(7)
    names = [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    for number, name in enumerate(names):
        safetensors(folder / name, f"layers.{number}", chance.randbytes(SIZE))
    with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{cas}") as commit:
        handles = [commit.start_upload_file(str(folder / name)) for name in names]
    hashes = {n: h.result().xet_info.hash for n, h in zip(names, handles, strict=True)}
    bench.hub.cas = f"local://{cas}"
    bench.commit = bench.hub.add(REPO, folder, xet=hashes)
    return cas


def only_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store be the faster way, which it is not on this machine's loopback."""
    monkeypatch.setattr(Routes, "_rate", lambda _, name: 1.0 if name == "xet" else 0.5)


@pytest.mark.usefixtures("store")
def test_through_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files come out of the xet store with one token, and no byte of them over HTTP."""
    only_xet(monkeypatch)
    pulled = bench.pull(wanted=Wanted(REPO))
    tokens = [one for one in bench.hub.log if "xet-read-token" in one.path]

    assert 0 == bench.hub.sent(r"\?until")
    assert 1 == len(tokens)
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


@pytest.mark.usefixtures("store")
def test_both_ways_are_tried(bench: Bench) -> None:
    """Until it is known which way is faster, both are used."""
    pulled = bench.pull(wanted=Wanted(REPO), workers=2)

    assert 0 < bench.hub.sent(r"\?until") < 3 * SIZE
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


@pytest.mark.parametrize("how", ["--no-xet", "HF_HUB_DISABLE_XET"])
@pytest.mark.usefixtures("store")
def test_without_xet(bench: Bench, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-xet and the hub client's own variable ask the store nothing."""
    if how == "HF_HUB_DISABLE_XET":
        monkeypatch.setenv(how, "1")
    bench.pull(wanted=Wanted(REPO), xet=how != "--no-xet")

    assert not [one for one in bench.hub.log if "xet-read-token" in one.path]
    assert bench.hub.sent(r"\?until") > 3 * SIZE


def test_a_flipped_byte_in_the_store(
    bench: Bench, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store hands out wrong is noticed, and fetched again the plain way."""
    only_xet(monkeypatch)
    xorb = max((p for p in store.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(xorb.read_bytes())
    data[len(data) // 2] ^= 1
    xorb.chmod(0o644)
    xorb.write_bytes(data)
    pulled = bench.pull(wanted=Wanted(REPO))

    assert bench.of(Damaged) or "xet" in bench.told()
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_store_that_is_gone(bench: Bench, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store fails, HTTP brings everything, and it is said once."""
    only_xet(monkeypatch)
    bench.hub.cas = f"local://{store}-nowhere"
    pulled = bench.pull(wanted=Wanted(REPO))

    assert bench.of(Published)[0].fetched >= 3 * SIZE
    assert bench.told().count("over HTTP instead") <= 1
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


@pytest.mark.usefixtures("store")
def test_a_part_that_http_began(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was begun over HTTP goes on through the store, from its last block."""
    bench.hub.faults = [Fault(r"\?until", "cut", 3, at=9_000_000)]
    bench.hub.faults += [Fault(r"\?until", "status", 999, status=503)]
    with pytest.raises(Exception, match="503"):
        bench.pull(wanted=Wanted(REPO), xet=False, workers=3)
    bench.hub.faults = []
    only_xet(monkeypatch)
    pulled = bench.pull(wanted=Wanted(REPO))

    assert bench.of(Published)[0].kept >= 3 * 8_000_000
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
