"""`kimideploy weights`: what is here, whether it is right, what can go, and how it travels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kimideploy.weights.store import Staging, claimed
from tests.cli.run import run
from tests.hub.repos import kimi, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, mismatches, plain


@pytest.mark.usefixtures("store")
def test_list_verify_repair(bench: Bench) -> None:
    """A flipped bit is exit 1 and named; --repair ends well and fetches that file."""
    folder = bench.pull().folder
    assert 0 == run("weights", "verify").exit_code
    data = bytearray((folder / shards(4)[0]).read_bytes())
    data[9] ^= 1
    (folder / shards(4)[0]).write_bytes(data)
    bad = run("weights", "verify", REPO)
    good = run("weights", "verify", REPO, "--repair", "--full")

    assert (1, 0) == (bad.exit_code, good.exit_code)
    assert shards(4)[0] in bad.stderr
    assert [] == mismatches(folder, REPO, bench.commit, bench.hub.url)
    listed = run("weights", "list", "--code").stdout
    assert REPO in listed
    assert "sha256" in listed


@pytest.mark.usefixtures("store")
def test_any_folder(bench: Bench) -> None:
    """A folder that someone else filled is proved against the repository it should be."""
    mine = kimi(bench.top.with_name("mine"))
    words = ("weights", "verify", str(mine), "--repo", REPO)
    result = run(*words)
    (mine / shards(4)[2]).unlink()
    bad, mended = run(*words), run(*words, "--repair")

    assert (0, 1, 0) == (result.exit_code, bad.exit_code, mended.exit_code)
    assert "README.md is none of the checkpoint's files" in result.stderr
    assert 0 == run("weights", "verify", str(mine), "--repo", REPO, "--full").exit_code


def test_prune(bench: Bench, store: Path) -> None:
    """Pulls that were not finished go, with --old commits before the last; nothing else does."""
    old = bench.pull().folder
    bench.grown(seed=1)
    new = bench.pull().folder
    bench.hub.faults = [Fault(shards(4)[3], "status", 999, status=503)]
    bench.grown(seed=2)
    with pytest.raises(Exception, match="503"):
        bench.pull()
    asked = run("weights", "prune", "--old")
    foreseen = run("weights", "prune", "--old", "--dry-run")

    assert 2 == asked.exit_code
    assert "--yes" in asked.stderr
    assert 2 == len(foreseen.stdout.splitlines())
    assert 0 == run("weights", "prune", "--yes").exit_code
    assert {old.name, new.name, ".code.json"} == {p.name for p in (store / REPO).iterdir()}
    assert 0 == run("weights", "prune", "--old", "--yes", "--json").exit_code
    assert {new.name, ".code.json"} == {p.name for p in (store / REPO).iterdir()}


@pytest.mark.usefixtures("store")
def test_prune_counts_what_is_freed(bench: Bench) -> None:
    """Bytes that another commit has a name for, too, are not promised to be free."""
    bench.pull()
    (bench.folder / "config.json").write_text('{"changed": true}')
    bench.hub.add(REPO, bench.folder)
    bench.pull()
    found = json.loads(run("weights", "prune", "--old", "--dry-run", "--json").stdout)

    assert 1 == len(found["folders"])
    assert 0 < found["bytes"] < 100_000


def test_prune_leaves_what_is_pulled_now(bench: Bench, store: Path) -> None:
    """A pull that is under way stays, and is told."""
    staging = Staging(store / REPO / bench.commit)
    staging.files.mkdir(parents=True)
    with claimed(staging):
        result = run("weights", "prune", "--yes")

    assert 0 == result.exit_code
    assert "stays: a pull is under way" in result.stderr
    assert staging.files.is_dir()


def test_prune_asks(bench: Bench, store: Path) -> None:
    """On a terminal it asks; no means no, and is no interruption."""
    staging = Staging(store / REPO / bench.commit)
    staging.files.mkdir(parents=True)
    codes = {}
    for answer in ("n", "y"):
        main, side = os.openpty()
        words = [sys.executable, "-m", "kimideploy", "weights", "prune"]
        with subprocess.Popen(words, stdin=side, stdout=side, stderr=side) as process:
            os.write(main, f"{answer}\n".encode())
            codes[answer] = process.wait(30), staging.folder.exists()
        os.close(main)
        os.close(side)

    assert {"n": (1, True), "y": (0, False)} == codes


@pytest.mark.usefixtures("store")
def test_what_a_pull_has_brought(bench: Bench) -> None:
    """A pull that has not ended is listed with what it has proved, not with its reserved room."""
    bench.hub.faults = [Fault(name, "status", 999, status=503) for name in shards(4)[1:]]
    with pytest.raises(Exception, match="503"):
        bench.pull()
    entry = json.loads(run("weights", "list", "--json").stdout)["entries"][0]

    assert not entry["complete"]
    assert 0 < entry["have"] < entry["bytes"] - 250_000
    assert "a pull that has not ended" in run("weights", "list").stdout
    refused = run("weights", "verify", REPO)
    assert f"a pull of {REPO} has not ended" in plain(refused.stderr)
    assert f"hint: kimideploy pull {REPO}" in refused.stderr


def test_a_folder_that_can_not_be_told_of(bench: Bench, store: Path) -> None:
    """An odd manifest is listed as what it is, beside the others."""
    bench.pull()
    odd = store / "org" / "odd" / ("0" * 40) / ".kimideploy"
    odd.mkdir(parents=True)
    (odd / "manifest.json").write_text("{")
    shown = run("weights", "list").stdout

    assert REPO in shown
    assert "is no manifest" in plain(shown)


def test_a_model_names_its_repository(bench: Bench, store: Path) -> None:
    """verify and bundle take the names that pull takes."""
    bench.commit = bench.hub.add("moonshotai/Kimi-K2.7-Code", bench.folder)
    run("pull", "kimi-k2.7-code")

    assert 0 == run("weights", "verify", "kimi-k2.7-code").exit_code
    assert 0 == run("weights", "bundle", "kimi-k2.7-code", "-o", str(store / "b")).exit_code


@pytest.mark.usefixtures("bench", "store")
def test_verify_says_how_to_repair(bench: Bench) -> None:
    """A damaged folder is named with its commit, and the way out is a command."""
    folder = bench.pull().folder
    (folder / "config.json").write_text("{}")
    result = run("weights", "verify")

    assert 1 == result.exit_code
    assert f"{REPO} {bench.commit[:12]} is not what it should be" in plain(result.stderr)
    hint = result.stderr.partition("hint: kimideploy ")[2].split()
    assert 0 == run(*hint).exit_code


@pytest.mark.usefixtures("store")
def test_bundle_and_unbundle(bench: Bench, tmp_path: Path) -> None:
    """A bundle is named on stdout, and unpacks into another store."""
    folder = bench.pull().folder
    made = run("weights", "bundle", REPO, "-o", str(tmp_path / "b"), "--split", "1MiB")
    back = run("weights", "unbundle", made.stdout.strip(), "--to", str(tmp_path / "other"))

    assert (0, 0) == (made.exit_code, back.exit_code)
    assert files_of(folder) == files_of(Path(back.stdout.strip()))


@pytest.mark.usefixtures("store")
def test_speed_is_measured(bench: Bench) -> None:
    """list --speed reads, and says the rate, the time and the file system it is on."""
    bench.pull()
    load = json.loads(run("weights", "list", "--speed", "--json").stdout)["entries"][0]["load"]
    shown = plain(run("weights", "list", "--speed").stdout)

    assert load["rate"] > 0
    assert load["filesystem"] in shown
    assert "/s: " in shown


@pytest.mark.usefixtures("store")
def test_a_bundle_with_wheels(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--wheelhouse puts wheels beside the volumes, checked like them when they are unpacked."""
    bench.pull()

    def collected(folder: Path) -> list[Path]:
        assert not list(folder.parent.glob("*.tar.*"))
        folder.mkdir(parents=True)
        (folder / "kimideploy-0-py3-none-any.whl").write_bytes(b"wheel")
        return list(folder.glob("*.whl"))

    monkeypatch.setattr("kimideploy.apply.wheelhouse.collect", collected)
    made = run("weights", "bundle", REPO, "-o", str(tmp_path / "b"), "--wheelhouse")
    assert 0 == made.exit_code
    assert "--no-index --find-links" in plain(made.stderr)
    assert "wheelhouse/kimideploy-0-py3" in Path(made.stdout.strip()).read_text()
    words = ("weights", "unbundle", str(tmp_path / "b"), "--to", str(tmp_path / "other"))
    wheel = tmp_path / "b" / "wheelhouse" / "kimideploy-0-py3-none-any.whl"
    wheel.write_bytes(b"other")
    bad = run(*words)
    wheel.write_bytes(b"wheel")

    assert (4, 0) == (bad.exit_code, run(*words).exit_code)
    assert "is not what its checksum says" in plain(bad.stderr)


@pytest.mark.usefixtures("store")
def test_what_is_damaged_is_not_bundled(bench: Bench, tmp_path: Path) -> None:
    """A bit that rotted under an unchanged time is found before it crosses the gap."""
    path = bench.pull().folder / shards(4)[1]
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    made = run("weights", "bundle", REPO, "-o", str(tmp_path / "b"))

    assert 4 == made.exit_code
    assert shards(4)[1] in made.stderr
    assert not list(tmp_path.glob("b/*.tar.*"))


@pytest.mark.usefixtures("store")
def test_the_publishers_mistake_is_found_by_verify(bench: Bench) -> None:
    """Files that are the hub's, byte for byte, and no checkpoint: verify says no."""
    index = bench.folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("layers.0.weight", "layers.9.weight"))
    bench.hub.add(REPO, bench.folder)
    bench.pull()
    result = run("weights", "verify", "--full")

    assert 1 == result.exit_code
    assert "'model.layers.9.weight' is in no shard" in plain(result.stderr)
    assert "hint:" not in result.stderr


@pytest.mark.usefixtures("store")
def test_a_record_in_somebodys_folder(bench: Bench) -> None:
    """Whoever can write a folder can write that it was proved: with --repo all of it is read."""
    mine = kimi(bench.top.with_name("mine"))
    words = ("weights", "verify", str(mine), "--repo", REPO)
    assert 0 == run(*words).exit_code
    path, record = mine / shards(4)[0], mine / ".kimideploy" / "seen.json"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    seen, found = json.loads(record.read_text()), path.stat()
    seen[path.name] |= {"mtime": found.st_mtime_ns, "inode": found.st_ino}
    record.write_text(json.dumps(seen))

    assert 1 == run(*words).exit_code


@pytest.mark.usefixtures("store")
def test_names_do_not_steer_the_terminal(bench: Bench) -> None:
    """Folders with escape sequences in their names are shown without them."""
    (bench.top / "org" / "x" / ".evil\x1b[2J.pull").mkdir(parents=True)

    assert "\x1b" not in run("weights", "prune", "--dry-run").stdout
