"""Files that are on this machine already: taken over without a copy, proved, or left alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kimideploy.weights.events import Adopted, Published, Told
from kimideploy.weights.pull import Pulled
from kimideploy.weights.store import Staging
from tests.hub.repos import shards
from tests.pull.conftest import REPO, Bench, disk, files_of, leftovers, mismatches


def fetched(bench: Bench) -> int:
    """Return the bytes of large files that came over the wire."""
    return bench.hub.sent(r"\?until")


def same_blocks(pulled: Pulled, name: str, other: Path) -> bool:
    """Return whether a file of the store and *other* are one file on the disk."""
    return (pulled.folder / name).samefile(other)


def cached(bench: Bench) -> Path:
    """Fill the hub client's own cache, by that client; returns the snapshot."""
    import huggingface_hub  # noqa: PLC0415  HF_HOME is set before it is imported

    return Path(
        huggingface_hub.snapshot_download(
            REPO,
            revision=bench.commit,
            endpoint=bench.hub.url,
            cache_dir=f"{os.environ['HF_HOME']}/hub",
        )
    )


def hows(bench: Bench) -> dict[str, str]:
    """Return how each file was taken over."""
    return {event.path: event.how for event in bench.of(Adopted)}


def test_the_hubs_own_cache(bench: Bench) -> None:
    """What the hub's client has downloaded is taken over by a second name, and not fetched."""
    snapshot = cached(bench)
    bench.hub.log.clear()
    pulled = bench.pull()

    assert 0 == fetched(bench)
    assert "hard link" == hows(bench)[shards(4)[0]]
    assert same_blocks(pulled, shards(4)[0], snapshot / shards(4)[0])
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_cache_with_a_flipped_bit(bench: Bench) -> None:
    """The client checks no contents; we do, and fetch that file from the hub."""
    broken = (cached(bench) / shards(4)[2]).resolve()
    data = bytearray(broken.read_bytes())
    data[999] ^= 4
    broken.chmod(0o644)
    broken.write_bytes(data)
    bench.hub.log.clear()
    pulled = bench.pull()

    assert broken.stat().st_size == fetched(bench)
    assert "is not taken over: its hash is not the hub's" in bench.told()
    assert bytes(data) == broken.read_bytes()
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_folder_by_hand(bench: Bench, tmp_path: Path) -> None:
    """--adopt takes what is right in a folder, whole or not."""
    mine = tmp_path / "mine"
    shutil.copytree(bench.folder, mine)
    (mine / shards(4)[1]).unlink()
    (mine / shards(4)[3]).write_bytes(b"short")
    pulled = bench.pull(adopt=(mine,))

    assert {f"/{REPO}/{bench.commit}/{shards(4)[n]}" for n in (1, 3)} == {
        one.path.partition("?")[0] for one in bench.hub.log if one.sent and one.origin == "cdn"
    }
    assert same_blocks(pulled, shards(4)[0], mine / shards(4)[0])


def test_small_files_are_copied(bench: Bench, tmp_path: Path) -> None:
    """Whoever edits a configuration in the folder it came from does not change the store's."""
    mine = tmp_path / "mine"
    shutil.copytree(bench.folder, mine)
    pulled = bench.pull(adopt=(mine,))
    with (mine / "config.json").open("a") as config:
        config.write(" ")

    assert {"copy", "hard link"} == set(hows(bench).values())
    assert "copy" == hows(bench)["config.json"]
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_kill_among_copies(bench: Bench, tmp_path: Path) -> None:
    """What a killed run had taken over is recorded, or found again, and not taken twice."""
    mine = tmp_path / "mine"
    shutil.copytree(bench.folder, mine)
    with pytest.raises(KeyboardInterrupt):
        bench.pull(adopt=(mine,), interrupt=Adopted)
    taken = set(hows(bench))
    staging = Staging(bench.top / REPO / bench.commit)
    # Why: copies are made by several workers, and another may have got this far before the end.
    (staging.files / shards(4)[2]).unlink(missing_ok=True)
    shutil.copy(mine / shards(4)[2], staging.files / shards(4)[2])
    pulled = bench.pull(adopt=(mine,))

    assert taken
    assert not {*taken, shards(4)[2]} & set(hows(bench))
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def test_from_another_disk(bench: Bench, tmp_path: Path) -> None:
    """From another disk it is copied, which is said, and proved like the rest."""
    with disk(tmp_path, "ext4") as place:
        shutil.copytree(bench.folder, place / "mine")
        bench.pull(adopt=(place / "mine",))

    assert {"copy"} == set(hows(bench).values())
    assert 0 == fetched(bench)


def test_links_that_lead_elsewhere(bench: Bench, tmp_path: Path) -> None:
    """A link to a folder, to nowhere or to itself is not taken for a file."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / shards(4)[0]).symlink_to(tmp_path)
    (mine / shards(4)[1]).symlink_to("/nowhere")
    (mine / shards(4)[2]).symlink_to(mine / shards(4)[2])
    os.mkfifo(mine / shards(4)[3])
    bench.pull(adopt=(mine,))

    assert not bench.of(Adopted)
    assert bench.of(Published)[0].fetched > 400_000


def test_a_reflink_where_the_disk_can(bench: Bench, tmp_path: Path) -> None:
    """On a file system that clones blocks, the file is ours alone and takes no room."""
    with disk(tmp_path, "btrfs") as place:
        mine = place / "mine"
        shutil.copytree(bench.folder, mine)
        pulled = bench.pull(top=place / "store", adopt=(mine,))

        assert {"reflink"} == set(hows(bench).values())
        assert not same_blocks(pulled, shards(4)[0], mine / shards(4)[0])
        (mine / shards(4)[0]).write_bytes(b"changed")
        assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_the_donor_stays(bench: Bench, tmp_path: Path) -> None:
    """Nothing in a folder that is taken from changes."""
    mine = tmp_path / "mine"
    shutil.copytree(bench.folder, mine)
    before = files_of(mine)
    bench.pull(adopt=(mine,))

    assert before == files_of(mine)
    assert not [event for event in bench.of(Told) if "not taken over" in event.text]
