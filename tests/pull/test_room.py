"""Disks that are full, read-only or limited: refused before the first byte, nothing left over."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from kimideploy.errors import MachineError, WeightsError
from kimideploy.weights import space
from kimideploy.weights.events import Moved, Published
from kimideploy.weights.forecast import foresee
from kimideploy.weights.listing import listing
from kimideploy.weights.manifest import Item, read_manifest
from kimideploy.weights.part import BLOCK
from kimideploy.weights.resolve import Ways
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Staging
from tests.hub.repos import kimi
from tests.hub.server import Entry, Fault
from tests.pull.conftest import REPO, Bench, disk, leftovers, mismatches


def test_a_disk_that_is_too_small(bench: Bench, small: Path) -> None:
    """The sum is taken before the first byte of a file; what is short is said in numbers."""
    bench.grown(count=2, size=40_000_000)
    bench.hub.log.clear()
    with pytest.raises(WeightsError, match="short") as caught:
        bench.pull(top=small)

    assert "still to come" in caught.value.message
    assert 0 == bench.hub.sent(r"safetensors\?|config\.json$")
    assert [] == [path for path in small.rglob("*") if path.suffix == ".part"]


def test_what_is_there_counts(bench: Bench, small: Path) -> None:
    """A pull that was begun needs room for the rest only."""
    bench.grown(count=4, size=8_000_000)
    fill = small / "fill"
    bench.hub.faults = [Fault("00004-of", "status", 999, status=503)]
    with pytest.raises(WeightsError, match="503"):
        bench.pull(top=small, workers=1)
    bench.hub.faults = []
    free = space.look(small).free
    fill.write_bytes(bytes(max(free - (256 << 20) - 9_000_000, 0)))
    pulled = bench.pull(top=small)

    assert bench.of(Published)[0].kept >= 24_000_000
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_disk_that_fills_meanwhile(
    bench: Bench, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone else takes the room: the error names the disk, the next run goes on."""
    bench.grown(count=4, size=8_000_000)
    fill = small / "fill"

    def filled(*_: object) -> int:
        if not fill.exists():
            fill.write_bytes(bytes(space.look(small).free - 20_000_000))
        return 0

    monkeypatch.setattr(space, "reserve", filled)
    with pytest.raises(WeightsError, match="the disk is full") as caught:
        bench.pull(top=small)
    assert "what is there is kept" in (caught.value.hint or "")
    fill.write_bytes(b"")
    pulled = bench.pull(top=small)

    assert bench.of(Published)[0].kept > 8_000_000
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(small)


def test_reserving_fails_cleanly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota that answers to the reservation leaves no part behind."""

    def refused(path: Path, size: int) -> int:
        if size > 90_000:
            raise WeightsError(f"no room for {path.name}: Disk quota exceeded")
        path.touch()
        return 0

    monkeypatch.setattr(space, "reserve", refused)
    with pytest.raises(WeightsError, match="quota"):
        bench.pull()

    assert [] == list(bench.top.rglob("*.part"))
    assert 0 == bench.hub.sent(r"safetensors\?")


def test_a_reservation_that_the_disk_refuses(bench: Bench, small: Path) -> None:
    """Where the disk itself says no to the room, the words are the disk's, and no part stays."""
    part = small / "x.part"
    with pytest.raises(WeightsError, match=r"no room for x\.part: No space left"):
        space.reserve(part, 400 << 20)
    free = space.look(small).free
    bench.grown(count=2, size=8_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "look", lambda _: space.Room(1 << 40, None, None))
        (small / "fill").write_bytes(bytes(free - 10_000_000))
        with pytest.raises(WeightsError, match="no room for"):
            bench.pull(top=small)

    assert [] == list((small / REPO).rglob("*.part"))
    assert 0 == bench.hub.sent(r"safetensors\?")


def test_a_quota(bench: Bench, tmp_path: Path) -> None:
    """A quota that leaves less than the disk has is found before a shard is asked for."""
    bench.grown(count=4, size=8_000_000)
    with disk(tmp_path, "btrfs", size=900 << 20) as place:
        for words in (
            f"quota enable {place}",
            f"subvolume create {place}/store",
            f"qgroup limit 20M {place}/store",
        ):
            subprocess.run(["btrfs", *words.split()], check=True, capture_output=True)
        with pytest.raises(WeightsError, match=r"no room for .*quota") as caught:
            bench.pull(top=place / "store")

        assert "raise the quota" in (caught.value.hint or "")
        assert [] == list(place.rglob("*.part"))
    assert 0 == bench.hub.sent(r"safetensors\?")


def test_the_power_goes(bench: Bench, tmp_path: Path) -> None:
    """When a pull has returned, all of it is on the disk: the power may go at once.

    The disk is a file with a file system of its own; a copy of that file, taken while it is
    mounted, is what a machine would find after the power came back.
    """
    bench.grown(count=3, size=4_000_000)
    with disk(tmp_path, "ext4") as place:
        pulled = bench.pull(top=place / "store")
        shutil.copyfile(tmp_path / "ext4-image", tmp_path / "after")
    with disk(tmp_path, "ext4", image=tmp_path / "after") as place:
        after = place / "store" / REPO / bench.commit

        assert after.is_dir()
        assert [] == mismatches(after, REPO, bench.commit, bench.hub.url)
        assert pulled.manifest == read_manifest(after)


def test_taking_over_needs_room_too(bench: Bench, small: Path) -> None:
    """Files that have to be copied from another disk are summed before the first of them is."""
    bench.grown(count=2, size=40_000_000)
    with pytest.raises(WeightsError, match="short"):
        bench.pull(top=small, adopt=(bench.folder,))

    assert not list(small.rglob("*.safetensors"))


def test_reservation_takes_blocks_and_no_size(tmp_path: Path) -> None:
    """What is reserved is there for nobody else, and the file is as short as before."""
    path = tmp_path / "x.part"
    took = space.reserve(path, 8 << 20)

    assert 0 == path.stat().st_size
    assert took == path.stat().st_blocks * 512


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (space.Room(free=10 << 30, inodes=5, file_size=None), "5 inodes left"),
        (space.Room(free=10 << 30, inodes=None, file_size=1 << 20), "files of 1.0 MB"),
        (space.Room(free=1 << 30, inodes=None, file_size=None), "268.4 MB short"),
    ],
)
def test_limits(room: space.Room, said: str) -> None:
    """Inodes, the largest file and space are refused each in its own words."""
    item = Item("a.safetensors", 1 << 30, sha256="0" * 64)
    with pytest.raises(WeightsError, match=said):
        space.check([item], 0, room, Path("/data"))


def test_a_limit_of_the_shell(bench: Bench) -> None:
    """ulimit -f is found before a byte is asked for, and not by a signal on the way."""
    bench.grown(count=1, size=3_000_000)
    words = ["pull", REPO, "--to", str(bench.top)]
    ended = subprocess.run(
        [sys.executable, "-m", "kimideploy", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )

    assert 4 == ended.returncode
    assert "ulimit -f unlimited" in ended.stderr


def test_a_folder_that_can_not_be_written(bench: Bench, small: Path) -> None:
    """A read-only disk is the machine's refusal, with another folder as the way out."""
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(MachineError, match="can't be written") as caught:
        bench.pull(top=small)

    assert "--to" in (caught.value.hint or "")


def test_what_is_whole_needs_no_writing(bench: Bench, small: Path) -> None:
    """Weights that someone else pulled onto a read-only disk are taken as they are."""
    bench.pull(top=small)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    bench.hub.log.clear()
    pulled = bench.pull(wanted=Wanted(REPO, bench.commit), top=small)

    assert small / REPO / bench.commit == pulled.folder
    assert not bench.hub.log


def test_a_file_in_the_way(bench: Bench) -> None:
    """A file where a folder should be is said so."""
    bench.top.mkdir()
    (bench.top / "moonshotai").write_text("")
    with pytest.raises(MachineError, match="can't be written"):
        bench.pull()


def test_a_checkpoint_of_real_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 shards of 9.8 GB are planned, listed, refused and gone on with within seconds."""
    kimi(bench.folder, count=64, size=100)
    files = dict(bench.hub.repos[REPO][bench.hub.add(REPO, bench.folder)])
    for name, entry in files.items():
        if name.endswith(".safetensors"):
            files[name] = Entry(9_800_000_000, entry.oid, "ab" * 32)
    bench.commit = bench.hub.publish(REPO, files)
    began = time.monotonic()
    before = foresee(Wanted(REPO), bench.top, Ways())
    with pytest.raises(WeightsError, match="short"):
        bench.pull()
    assert not list(bench.top.rglob("*.part"))
    _begin(bench, blocks=1000)
    after = foresee(Wanted(REPO), bench.top, Ways())
    (kept,) = listing(bench.top).entries

    assert before.fetch == before.bytes > 64 * 9_800_000_000
    assert before.fetch - 64 * 1000 * BLOCK == after.fetch
    assert after.short > 0
    assert 64 * 1000 * BLOCK <= kept.have <= 64 * 1000 * BLOCK + 300_000

    # A pull that goes on claims what it proved of the first shard, and asks for the rest of it.
    bench.hub.faults = [Fault("resolve.*safetensors$", "status", 9999, status=503)]
    monkeypatch.setattr(space, "look", lambda _: space.Room(1 << 44, None, None))
    monkeypatch.setattr(space, "reserve", lambda *_: 0)
    with pytest.raises(WeightsError, match="503"):
        bench.pull(workers=1)
    asked = {one.range for one in bench.hub.log if one.status == 503}

    assert 1000 * BLOCK <= bench.of(Moved)[-1].kept
    assert {f"bytes={1000 * BLOCK}-"} == {one.rpartition("-")[0] + "-" for one in asked if one}
    assert time.monotonic() - began < 20


def _begin(bench: Bench, *, blocks: int) -> None:
    """Write what a killed run would have left of each shard: a sparse part and its ledger."""
    staging = Staging(bench.top / REPO / bench.commit)
    for path, entry in bench.hub.repos[REPO][bench.commit].items():
        if path.endswith(".safetensors"):
            item = Item(path, entry.size, sha256=entry.sha256)
            place = staging.place(item.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.with_name(f"{place.name}.part").open("wb") as file:
                file.truncate(blocks * BLOCK)
            crc = zlib.crc32(bytes(BLOCK))
            lines = "".join(f"{block} {crc:08x}\n" for block in range(blocks))
            head = f"sha256 {item.sha256} {item.size} {BLOCK}\n"
            place.with_name(f"{place.name}.ledger").write_text(head + lines)
