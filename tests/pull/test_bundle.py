"""Bundles: written in volumes, gone on with, unpacked and proved without a network."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kimideploy.errors import BusyError, KimiError, RequestError, WeightsError
from kimideploy.weights import space
from kimideploy.weights.bundle import LEAST, add, bundle
from kimideploy.weights.events import Arrived, Event
from kimideploy.weights.manifest import Manifest
from kimideploy.weights.pull import Pulled
from kimideploy.weights.store import alone
from kimideploy.weights.tape import name_of
from kimideploy.weights.unbundle import unbundle
from tests.hub.repos import shards
from tests.pull.conftest import REPO, Bench, files_of, leftovers


@pytest.fixture
def pulled(bench: Bench) -> Pulled:
    """Return a checkpoint of 6 MB in the store."""
    bench.grown(count=4, size=1_500_000)
    return bench.pull()


def packed(pulled: Pulled, to: Path, split: int = LEAST) -> list[Event]:
    """Write the bundle; returns what was told."""
    told: list[Event] = []
    bundle(pulled.folder, pulled.manifest, to, split=split, tell=told.append)
    return told


def unpacked(where: Path, top: Path) -> Path:
    """Unpack the bundle; returns the folder."""
    return unbundle(where, top, accept_code=False, tell=lambda _: None)[0]


def test_there_and_back(pulled: Pulled, tmp_path: Path) -> None:
    """What is unpacked is what was packed, in a store that proves it again."""
    packed(pulled, tmp_path / "b")
    folder = unpacked(tmp_path / "b", tmp_path / "other")

    assert files_of(pulled.folder) == files_of(folder)
    assert pulled.folder.name == folder.name
    assert [] == leftovers(tmp_path / "other")


def test_usual_tools_read_it(pulled: Pulled, tmp_path: Path) -> None:
    """sha256sum checks the volumes, tar unpacks them put together."""
    packed(pulled, tmp_path / "b")
    sums = f"{name_of(pulled.manifest)}.sha256"
    subprocess.run(["sha256sum", "-c", "--quiet", sums], cwd=tmp_path / "b", check=True)
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(p.read_bytes() for p in sorted((tmp_path / "b").glob("*.tar.*"))))
    with tarfile.open(whole) as tar:
        tar.extractall(tmp_path / "tar", filter="data")

    assert files_of(pulled.folder) == files_of(tmp_path / "tar" / REPO / pulled.folder.name)


def test_gone_on_with(pulled: Pulled, tmp_path: Path) -> None:
    """Volumes that are there are kept, the one that was being written is written anew."""
    packed(pulled, tmp_path / "b")
    volumes = sorted((tmp_path / "b").glob("*.tar.*"))
    before = {path.name: path.read_bytes() for path in volumes}
    volumes[2].rename(volumes[2].with_name(f"{volumes[2].name}.part"))
    volumes[3].write_bytes(b"short")
    told = packed(pulled, tmp_path / "b")

    assert {volumes[2].name, volumes[3].name} == {e.path for e in told if isinstance(e, Arrived)}
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.tar.*")}


def test_divided_anew(pulled: Pulled, tmp_path: Path) -> None:
    """Other volumes take the place of those of another division, and of another manifest."""
    packed(pulled, tmp_path / "b")
    packed(pulled, tmp_path / "b", split=3 * LEAST)
    assert 2 == len(list((tmp_path / "b").glob("*.tar.*")))
    assert files_of(pulled.folder) == files_of(unpacked(tmp_path / "b", tmp_path / "one"))
    fewer = Manifest(pulled.manifest.repo, pulled.manifest.revision, pulled.manifest.items[:-1])
    told: list[Event] = []
    bundle(pulled.folder, fewer, tmp_path / "b", split=3 * LEAST, tell=told.append)

    assert 2 == len([event for event in told if isinstance(event, Arrived)])
    assert shards(4)[3] not in files_of(unpacked(tmp_path / "b", tmp_path / "two"))


def test_a_folder_that_is_there_is_mended(pulled: Pulled, tmp_path: Path) -> None:
    """Where no network is, a bundle puts right what is damaged, and touches nothing else."""
    packed(pulled, tmp_path / "b")
    folder = unpacked(tmp_path / "b", tmp_path / "other")
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    data = bytearray((folder / shards(4)[2]).read_bytes())
    data[77] ^= 1
    (folder / shards(4)[2]).write_bytes(data)
    (folder / "config.json").unlink()
    told: list[Event] = []
    unbundle(tmp_path / "b", tmp_path / "other", accept_code=False, tell=told.append)
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}

    assert {shards(4)[2], "config.json"} == {e.path for e in told if isinstance(e, Arrived)}
    assert files_of(pulled.folder) == files_of(folder)
    assert {shards(4)[2], "config.json"} == {name for name in after if after[name] != before[name]}
    assert [] == leftovers(tmp_path / "other")


def test_a_disk_that_is_full(pulled: Pulled, small: Path) -> None:
    """Want of room is told before, and in words when it comes meanwhile."""
    (small / "fill").write_bytes(bytes(space.look(small).free - (1 << 20)))
    with pytest.raises(WeightsError, match="short"):
        packed(pulled, small / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "check", lambda *_, **__: None)
        with pytest.raises(WeightsError, match=r"the disk is full .*tar\.00"):
            packed(pulled, small / "b")


def test_into_the_weights_themselves(pulled: Pulled) -> None:
    """A bundle is not written into the folder that it is of."""
    for to in (pulled.folder, pulled.folder / "sub"):
        with pytest.raises(RequestError, match="is the folder that is bundled"):
            packed(pulled, to)


def test_two_at_once(pulled: Pulled, tmp_path: Path) -> None:
    """Who writes the same bundle at the same time is told so."""
    (tmp_path / "b").mkdir()
    lock = tmp_path / "b" / f".{name_of(pulled.manifest)}.lock"
    with alone(lock, "mine"), pytest.raises(BusyError, match="another kimideploy bundles"):
        packed(pulled, tmp_path / "b")
    packed(pulled, tmp_path / "b")

    assert not lock.exists()


def test_a_damaged_volume_is_named(pulled: Pulled, tmp_path: Path) -> None:
    """One bit tells which volume to copy again; with it, only what was missing is unpacked."""
    packed(pulled, tmp_path / "b")
    volume = sorted((tmp_path / "b").glob("*.tar.*"))[3]
    good = volume.read_bytes()
    bad = bytearray(good)
    bad[700_000] ^= 1
    volume.write_bytes(bad)
    with pytest.raises(WeightsError, match=rf"{volume.name} is damaged"):
        unpacked(tmp_path / "b", tmp_path / "other")
    assert not (tmp_path / "other" / REPO / pulled.folder.name).exists()
    volume.write_bytes(good)

    assert files_of(pulled.folder) == files_of(unpacked(tmp_path / "b", tmp_path / "other"))


def test_what_is_no_bundle(pulled: Pulled, tmp_path: Path) -> None:
    """Missing, cut and swapped volumes, other tars and empty folders are refused in words."""
    packed(pulled, tmp_path / "b")
    sums = tmp_path / "b" / f"{name_of(pulled.manifest)}.sha256"
    volumes = sorted((tmp_path / "b").glob("*.tar.*"))

    def refused(change: str) -> str:
        there = tmp_path / change
        shutil.copytree(tmp_path / "b", there)
        name = {n: there / path.name for n, path in enumerate(volumes)}
        match change:
            case "missing":
                name[1].unlink()
            case "cut":
                name[len(volumes) - 1].write_bytes(b"")
            case "swapped":
                first, second = name[0].read_bytes(), name[1].read_bytes()
                name[0].write_bytes(second)
                name[1].write_bytes(first)
            case "empty":
                (there / sums.name).unlink()
            case "gap":
                lines = (there / sums.name).read_text().splitlines(keepends=True)
                kept = [line for line in lines if volumes[1].name not in line]
                (there / sums.name).write_text("".join(kept))
            case _:
                raise AssertionError
        with pytest.raises(KimiError) as caught:
            unpacked(there, tmp_path / "other")
        return caught.value.message

    assert "is missing" in refused("missing")
    assert "its manifest comes to" in refused("cut")
    assert "does not begin with a manifest" in refused("swapped")
    assert "holds 0 bundles" in refused("empty")
    assert "does not name every volume" in refused("gap")
    with pytest.raises(RequestError, match="is not there"):
        unpacked(tmp_path / "nowhere", tmp_path / "other")


def test_a_tar_with_a_hostile_manifest(tmp_path: Path) -> None:
    """A bundle is no way around the checks of a manifest."""
    text = b'{"repo":"a/b","revision":"%s","items":[{"path":"../x","size":0,"oid":"%s"}]}'
    data = text % (b"0" * 40, b"0" * 40)
    folder = tmp_path / "b"
    folder.mkdir()
    info = tarfile.TarInfo("a/b/x/.kimideploy/manifest.json")
    info.size = len(data)
    (folder / "x.tar.000").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(2048))
    (folder / "x.sha256").write_text(f"{'0' * 64}  x.tar.000\n")
    with pytest.raises(WeightsError, match="could leave the folder"):
        unpacked(folder, tmp_path / "other")


def test_other_code_is_refused(pulled: Pulled, bench: Bench, tmp_path: Path) -> None:
    """Code that differs from what the machine accepted needs a word, from a bundle, too."""
    packed(pulled, tmp_path / "b")
    other = bench.top.with_name("other")
    bench.folder.joinpath("modeling_kimi_k25.py").write_text("import os\n")
    bench.hub.add(REPO, bench.folder)
    bench.pull(top=other)
    with pytest.raises(WeightsError, match=r"modeling_kimi_k25\.py has changed"):
        unpacked(tmp_path / "b", other)

    assert unbundle(tmp_path / "b", other, accept_code=True, tell=lambda _: None)[0].is_dir()


def test_more_files_beside_the_volumes(pulled: Pulled, tmp_path: Path) -> None:
    """Wheels that are added have their checksums, and do not disturb unpacking."""
    packed(pulled, tmp_path / "b")
    wheel = tmp_path / "b" / "wheelhouse" / "x-1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"wheel")
    add(pulled.manifest, tmp_path / "b", [wheel])
    sums = f"{name_of(pulled.manifest)}.sha256"
    subprocess.run(["sha256sum", "-c", "--quiet", sums], cwd=tmp_path / "b", check=True)

    assert unpacked(tmp_path / "b", tmp_path / "other").is_dir()


def test_names_too_long_for_a_header(bench: Bench, tmp_path: Path) -> None:
    """Long names travel, as tar has a way for them."""
    long = "c" * 150 + ".json"
    (bench.folder / long).write_text("{}")
    bench.hub.add(REPO, bench.folder)
    pulled = bench.pull()
    packed(pulled, tmp_path / "b")

    assert long in files_of(unpacked(tmp_path / "b", tmp_path / "other"))


def test_volumes_have_a_least_size(pulled: Pulled, tmp_path: Path) -> None:
    """Volumes of a few bytes are a slip."""
    with pytest.raises(RequestError, match="--split"):
        packed(pulled, tmp_path / "b", split=1000)


def test_the_last_shard_too(pulled: Pulled, tmp_path: Path) -> None:
    """With one volume for all it is the same."""
    packed(pulled, tmp_path / "b", split=1 << 30)

    assert shards(4)[3] in files_of(unpacked(tmp_path / "b", tmp_path / "other"))
