"""What a pull ends with: the planned files of one commit, proved, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kimideploy.errors import RequestError, WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights.events import Arrived, Damaged, Moved, Published, Resolved, Told
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Staging, every
from tests.hub.repos import WANTED, kimi, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, leftovers, mismatches


def test_what_is_there_afterwards(bench: Bench) -> None:
    """Exactly the files an engine reads, byte for byte, in a folder named by the commit."""
    pulled = bench.pull()
    origin = files_of(bench.folder)

    assert bench.top / REPO / bench.commit == pulled.folder
    assert {name: origin[name] for name in WANTED | set(shards(4))} == files_of(pulled.folder)
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def test_pickles_and_pictures_do_not_come(bench: Bench) -> None:
    """No request is made for what no engine reads, pickles least of all."""
    bench.pull()
    asked = " ".join(one.path for one in bench.hub.log)

    assert not [name for name in ("pytorch_model.bin", "README", "logo.png") if name in asked]


def test_events_tell_the_whole_story(bench: Bench) -> None:
    """First what will come and where, an arrival for each file, at the end what was fetched."""
    bench.pull()
    first, last = bench.of(Resolved)[0], bench.of(Published)[0]
    arrived = [event.path for event in bench.of(Arrived)]

    assert (first.files, first.bytes) == (len(arrived), last.bytes)
    assert last.fetched == last.bytes
    assert WANTED | set(shards(4)) == set(arrived)
    assert all(moved.done <= moved.total for moved in bench.of(Moved))


def test_progress_is_of_all_files(bench: Bench) -> None:
    """What is here already counts from the start, small files and large ones as one whole."""
    bench.hub.faults = [Fault(shards(4)[3], "status", 999, status=503)]
    with pytest.raises(WeightsError, match="503"):
        bench.pull()
    bench.hub.faults = []
    # Why slow: what is over in a moment is not told on the way.
    bench.pull(rate=200_000)
    moved = [event for event in bench.of(Moved) if event.stage == "fetching"]
    whole = bench.of(Published)[0]

    assert {(whole.files, whole.bytes)} == {(one.files, one.total) for one in moved}
    assert moved[0].done >= 300_000
    assert (whole.files, whole.bytes) == (moved[-1].files_done, moved[-1].done)
    assert moved[0].kept > 250_000


def test_small_files_come_first(bench: Bench) -> None:
    """Config and code are here before the first shard is asked for."""
    bench.pull()
    arrived = [event.path for event in bench.of(Arrived)]
    large = [name for name in arrived if name.endswith((".safetensors", ".model"))]

    assert arrived[-len(large) :] == large


def test_the_second_pull_asks_nothing(bench: Bench) -> None:
    """A commit that is here whole costs no request and reads no byte."""
    bench.pull()
    bench.hub.log.clear()
    pulled = bench.pull(wanted=Wanted(REPO, bench.commit))

    assert [] == bench.hub.log
    assert 0 == bench.of(Published)[0].fetched
    assert bench.commit == pulled.manifest.revision


def test_a_branch_is_resolved_once(bench: Bench) -> None:
    """A pull that was begun goes on with its commit though the branch has moved."""
    first = bench.commit
    with pytest.raises(WeightsError, match="brings other code"):
        bench.pull(code=(CodePin("modeling_kimi_k25.py", "0" * 64),))
    bench.grown(seed=1)
    pulled = bench.pull()

    assert first == pulled.manifest.revision
    assert f"going on with commit {first[:12]}" in bench.told()


def test_a_new_commit_takes_over_what_did_not_change(bench: Bench) -> None:
    """Files of the same hash are taken from the commit before; only what changed is fetched."""
    bench.pull()
    (bench.folder / "config.json").write_text('{"changed": true}')
    bench.commit = bench.hub.add(REPO, bench.folder)
    bench.hub.log.clear()
    pulled = bench.pull()

    assert 17 == bench.hub.sent(r"config\.json$")
    assert 0 == bench.hub.sent(r"safetensors(\?|$)|tiktoken|\.py$")
    assert 2 == len(every(bench.top))
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_pages_of_the_tree(bench: Bench) -> None:
    """A listing in pages of three is read to its end."""
    bench.hub.page = 3
    pulled = bench.pull()

    assert len(WANTED) + 4 == len(pulled.manifest.items)


def test_the_token_stays_with_the_hub(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub sees the token, the other origin that it redirects to never does."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bench.hub.token = "hf_secret"
    bench.pull()
    seen = {one.origin: one.authorized for one in bench.hub.log}

    assert {"hub": True, "cdn": False} == seen
    assert {"identity"} == {one.encoding for one in bench.hub.log if one.origin == "cdn"}


def test_a_gated_repository(bench: Bench) -> None:
    """Without a token the licence is what is missing, and it is said so."""
    bench.hub.token = "hf_secret"
    with pytest.raises(WeightsError, match="is gated") as caught:
        bench.pull()

    assert "HF_TOKEN" in (caught.value.hint or "")


def test_a_token_that_may_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of someone else finds no such repository."""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    bench.hub.token = "hf_secret"
    with pytest.raises(WeightsError, match="HF_TOKEN may not see it"):
        bench.pull()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("moonshotai/Nothing"), "the hub knows no moonshotai/Nothing"),
        (Wanted(REPO, "0" * 40), "no such revision"),
        (Wanted(REPO, "nowhere"), "no such revision"),
        (Wanted(REPO, pattern="*.onnx"), r"no files that match '\*.onnx'"),
        (Wanted(REPO, beside=("mmproj-F16.gguf",)), "lacks mmproj-F16.gguf"),
    ],
)
def test_what_is_not_there(bench: Bench, wanted: Wanted, said: str) -> None:
    """Repositories, revisions and files that are not there are named."""
    with pytest.raises(WeightsError, match=said):
        bench.pull(wanted=wanted)

    assert [] == leftovers(bench.top)


def test_a_name_that_is_none(bench: Bench) -> None:
    """A name that can't be a repository's is refused before anything is asked."""
    with pytest.raises(RequestError, match="no name of a repository"):
        bench.pull(wanted=Wanted("a//b"))


def test_a_shard_that_the_index_names_is_missing(bench: Bench) -> None:
    """A repository that lacks a shard is refused before the first of them is fetched."""
    (bench.folder / shards(4)[2]).unlink()
    bench.hub.add(REPO, bench.folder)
    with pytest.raises(WeightsError, match="which its index names"):
        bench.pull()


def test_the_publishers_own_mistake(bench: Bench) -> None:
    """Files that are whole and do not agree with each other are told, not hidden."""
    kimi(bench.folder, seed=3)
    index = bench.folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("layers.0.weight", "layers.9.weight"))
    bench.hub.add(REPO, bench.folder)
    bench.pull()

    assert "'model.layers.9.weight' is in no shard" in bench.told()


def test_gguf_of_one_quant(bench: Bench) -> None:
    """Of several quants the parts of one come, with the projector, into a folder of its own."""
    folder = bench.folder.parent / "gguf"
    for quant in ("UD-Q2_K_XL", "UD-Q4_K_XL"):
        (folder / quant).mkdir(parents=True)
        for part in (1, 2):
            name = f"Kimi-{quant}-{part:05d}-of-00002.gguf"
            (folder / quant / name).write_bytes(b"GGUF" + bytes(70_000))
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF" + bytes(66_000))
    (folder / "mmproj-F32.gguf").write_bytes(b"GGUF" + bytes(66_001))
    commit = bench.hub.add("unsloth/Kimi-GGUF", folder)
    wanted = Wanted(
        "unsloth/Kimi-GGUF", None, "UD-Q2_K_XL/*.gguf", "UD-Q2_K_XL", ("mmproj-F16.gguf",)
    )
    pulled = bench.pull(wanted=wanted)

    assert bench.top / "unsloth/Kimi-GGUF/UD-Q2_K_XL" / commit == pulled.folder
    assert {
        "mmproj-F16.gguf",
        "UD-Q2_K_XL/Kimi-UD-Q2_K_XL-00001-of-00002.gguf",
        "UD-Q2_K_XL/Kimi-UD-Q2_K_XL-00002-of-00002.gguf",
    } == set(files_of(pulled.folder))
    assert "is no GGUF file" in bench.told()
    with pytest.raises(WeightsError, match="has 2 checkpoints"):
        bench.pull(wanted=Wanted("unsloth/Kimi-GGUF"))


def test_folders_with_strange_names(bench: Bench, tmp_path: Path) -> None:
    """Spaces, quotes and a newline in the store's path are a path like any other."""
    top = tmp_path / 'a b\'s "c"\nd'
    pulled = bench.pull(top=top)

    assert top / REPO / bench.commit == pulled.folder
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


@pytest.mark.parametrize("text", ["{", '{"schema": "kimideploy.weights/9"}', ""])
def test_an_odd_folder_stops_nobody_else(bench: Bench, text: str) -> None:
    """A manifest that can't be read, in another checkpoint's folder, is no one else's trouble."""
    odd = bench.top / "org" / "odd" / ("0" * 40) / ".kimideploy"
    odd.mkdir(parents=True)
    (odd / "manifest.json").write_text(text)

    assert bench.pull().folder.is_dir()
    assert [REPO] == [kept.manifest.repo for kept in every(bench.top)]


def test_a_name_in_the_xet_store_changes_nothing(bench: Bench) -> None:
    """Weights that are whole stay so when the hub lists them in its xet store, too."""
    bench.pull()
    files = bench.hub.repos[REPO][bench.commit]
    for name, entry in files.items():
        files[name] = replace(entry, xet="ab" * 32) if entry.sha256 is not None else entry
    bench.hub.log.clear()
    before = (bench.top / REPO / bench.commit).stat().st_mtime_ns
    bench.pull()

    assert 0 == bench.hub.sent("until")
    assert before == (bench.top / REPO / bench.commit).stat().st_mtime_ns


def test_what_a_killed_run_left_is_swept(bench: Bench) -> None:
    """A run that was killed right after it published leaves nothing once the next has looked."""
    pulled = bench.pull()
    staging = Staging(pulled.folder)
    staging.parts.mkdir(parents=True)
    (staging.folder / "asked").write_text("")
    bench.pull()

    assert [] == leftovers(bench.top)


def test_an_empty_file(bench: Bench) -> None:
    """A file without bytes is a file."""
    (bench.folder / "added_tokens.json").write_text("")
    bench.hub.add(REPO, bench.folder)

    assert b"" == files_of(bench.pull().folder)["added_tokens.json"]


def test_damage_in_a_published_folder_is_mended(bench: Bench) -> None:
    """A pull finds what changed since, and fetches that file alone."""
    folder = bench.pull().folder
    broken = folder / shards(4)[1]
    data = bytearray(broken.read_bytes())
    data[500] ^= 1
    broken.write_bytes(data)
    bench.hub.log.clear()
    bench.pull(wanted=Wanted(REPO, bench.commit))

    assert broken.stat().st_size == bench.hub.sent()
    assert [shards(4)[1]] == [event.path for event in bench.of(Damaged)]
    assert not bench.of(Told)
    assert [] == mismatches(folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def test_a_touched_file_is_read_and_kept(bench: Bench) -> None:
    """A file with a new time and the same bytes is proved again and not fetched."""
    folder = bench.pull().folder
    (folder / shards(4)[0]).touch()
    bench.hub.log.clear()
    bench.pull(wanted=Wanted(REPO, bench.commit))

    assert 0 == bench.hub.sent()
    assert not bench.of(Told)


def test_connections_are_kept(bench: Bench) -> None:
    """Many files come over few connections."""
    bench.grown(count=60, size=1000)
    bench.hub.connections = 0
    bench.pull(workers=2)

    # One for the listing and one for the index; then two workers, for small files at the hub, and
    # for large ones at the hub and where it redirects to.
    assert bench.hub.connections <= 2 + 2 + 2 * 2
    assert len(bench.hub.log) > 120
