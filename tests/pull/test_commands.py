"""`kimideploy pull` and `kimideploy weights`: words, exit codes, streams, terminals, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kimideploy.weights import space
from kimideploy.weights.store import Staging, claimed
from tests.cli.run import run, spawn
from tests.hub.repos import WANTED, kimi, safetensors, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, mismatches, missing_part

ALL = len(WANTED) + 4


@pytest.fixture
def store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store that the commands use."""
    monkeypatch.setenv("KIMIDEPLOY_MODELS", str(bench.top))
    return bench.top


def plain(text: str) -> str:
    """Return *text* on one line."""
    return " ".join(text.split())


def test_pull_prints_the_folder(bench: Bench, store: Path) -> None:
    """The folder is the only thing on stdout, so that a script can take it."""
    ended = spawn("pull", REPO, env=dict(os.environ))

    assert 0 == ended.returncode
    assert f"{store / REPO / bench.commit}\n" == ended.stdout
    assert f"{ALL} files proved" in ended.stderr


def test_pull_as_json(bench: Bench, store: Path) -> None:
    """One object a line: first what was resolved, at the end what was published."""
    ended = spawn("pull", REPO, "--json", env=dict(os.environ))
    events = [json.loads(line) for line in ended.stdout.splitlines()]

    assert ("", 0) == (ended.stderr, ended.returncode)
    assert ["resolved", "published"] == [events[0]["event"], events[-1]["event"]]
    assert str(store / REPO / bench.commit) == events[-1]["folder"]


@pytest.mark.usefixtures("store")
def test_dry_run_writes_nothing(bench: Bench) -> None:
    """What would come is told in files and bytes, in 80 columns, and nothing is made."""
    text = run("pull", REPO, "--dry-run")
    found = json.loads(run("pull", REPO, "--dry-run", "--json").stdout)

    assert f"{ALL} files" in text.stdout
    assert max(len(line) for line in text.stdout.splitlines() if "/" not in line) <= 80
    assert found["fetch"] == found["bytes"] == sum(file["size"] for file in found["files"])
    assert ["chat_template.jinja", "modeling_kimi_k25.py"] == found["code"]
    assert not bench.top.exists()


@pytest.mark.usefixtures("store")
def test_dry_run_knows_what_is_here(bench: Bench) -> None:
    """Files that are proved, begun or to be taken over are not counted as to come."""
    bench.hub.faults = [Fault(shards(4)[3], "status", 999, status=503)]
    with pytest.raises(Exception, match="503"):
        bench.pull()
    bench.hub.faults = []
    found = json.loads(run("pull", REPO, "--dry-run", "--json").stdout)
    states = {file["path"]: file["state"] for file in found["files"]}

    assert ("here", "to fetch") == (states[shards(4)[0]], states[shards(4)[3]])
    adopted = run("pull", REPO, "--dry-run", "--json", "--adopt", str(bench.folder))
    assert 0 == json.loads(adopted.stdout)["fetch"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("pull", "no-model"), 2, "model 'no-model' is not known"),
        (("pull", "kimi-k2.7-code", "--checkpoint", "int3"), 2, "has no checkpoint 'int3'"),
        (("pull", "kimi-k2.7-code", "--checkpoint", "bf16"), 2, "no official bf16 checkpoint"),
        (("pull", "kimi-k2.7-code", "--files", "x"), 2, "--files is of a repository"),
        (("pull", REPO, "--checkpoint", "int4"), 2, "--checkpoint is of a model"),
        (("pull", "unsloth/Kimi-K2.7-Code-GGUF"), 2, "has 10 checkpoints"),
        (("pull", REPO, "--adopt", "/nowhere"), 2, "--adopt /nowhere is no folder"),
        (("pull", REPO, "--max-rate", "fast"), 2, "is not an amount"),
        (("pull", REPO, "--max-rate", "0"), 2, "'0' would let nothing through"),
        (("pull", REPO, "--stall-timeout", "nan"), 2, "--stall-timeout nan is no time"),
        (("pull", REPO, "--to", ""), 2, "'' names no folder"),
        (("pull", REPO, "--to", "README.md"), 2, "README.md is no folder"),
        (("pull", REPO, "--adopt", ""), 2, "'' names no folder"),
        (("pull", REPO, "--revision", "0123456789ab"), 4, "no such revision"),
        (("weights", "list", "--to", "README.md"), 2, "README.md is no folder"),
        (("weights", "prune", "--to", "README.md"), 2, "README.md is no folder"),
        (("weights", "verify", "README.md"), 2, "README.md is a file"),
        (("weights", "verify", "--to", "/nowhere"), 2, "weights list --to /nowhere"),
        (("weights", "bundle", REPO, "-o", ""), 2, "'' names no folder"),
        (("pull", REPO, "--max-workers", "0"), 2, "--max-workers"),
        (("pull", "org/nothing"), 4, "the hub knows no org/nothing"),
        (("pull", REPO, "--offline"), 4, "only the hub has"),
        (("weights", "verify"), 2, "holds no weights"),
        (("weights", "verify", "org/x"), 2, "org/x is not in"),
        (("weights", "verify", "."), 4, "has no manifest"),
        (("weights", "bundle", "org/x", "-o", "b"), 2, "org/x is not in"),
        (("weights", "unbundle", "nowhere"), 2, "nowhere is not there"),
    ],
)
@pytest.mark.usefixtures("store")
def test_refusals(words: tuple[str, ...], code: int, said: str) -> None:
    """What can't be done is a sentence with the right exit code, nothing on stdout."""
    result = run(*words)

    assert (code, "") == (result.exit_code, result.stdout)
    assert said in plain(result.stderr)
    assert "Traceback" not in result.stderr


def test_a_model_of_the_profiles(bench: Bench, store: Path) -> None:
    """A model's name means its official repository."""
    bench.commit = bench.hub.add("moonshotai/Kimi-K2.7-Code", bench.folder)
    result = run("pull", "kimi-k2.7-code")

    assert 0 == result.exit_code
    assert (store / "moonshotai/Kimi-K2.7-Code" / bench.commit).is_dir()


def test_patterns_do_not_mix(bench: Bench, store: Path, tmp_path: Path) -> None:
    """What two patterns choose of one commit lies apart, each whole, however alike they are."""
    folder = tmp_path / "st"
    folder.mkdir()
    for number in "12":
        safetensors(folder / f"a-{number}.safetensors", "w", number.encode() * 70_000)
    commit = bench.hub.add("org/st", folder)
    patterns = ("a-[2]*", "a-[!2]*", "a-2*", "*", "*.safetensors")
    words = [("pull", "org/st", "--files", p, "--revision", commit) for p in patterns]
    folders = [Path(run(*one).stdout.strip()) for one in words]

    assert 5 == len(set(folders))
    assert {store / "org" / "st"} == {one.parent.parent for one in folders}
    names = [sorted(files_of(one)) for one in folders]
    one, two = "a-1.safetensors", "a-2.safetensors"
    assert [[two], [one], [two], [one, two], [one, two]] == names


def test_a_folder_of_a_quant(bench: Bench, store: Path, tmp_path: Path) -> None:
    """A pattern that is a quant's folder lies where the model's own checkpoint of it does."""
    folder = tmp_path / "gguf"
    (folder / "Q2_K").mkdir(parents=True)
    (folder / "Q2_K" / "Kimi-Q2_K.gguf").write_bytes(b"GGUF" + bytes(70_000))
    commit = bench.hub.add("org/gguf", folder)
    made = run("pull", "org/gguf", "--files", "Q2_K/*")

    assert f"{store / 'org/gguf/Q2_K' / commit}\n" == made.stdout


@pytest.mark.usefixtures("store")
def test_a_plan_says_what(bench: Bench, tmp_path: Path) -> None:
    """--plan pulls what the plan serves from; other wishes contradict it."""
    bench.commit = bench.hub.add("moonshotai/Kimi-K2.7-Code", bench.folder)
    plan = tmp_path / "plan.json"
    run("plan", "--hardware", "8xH200", "--revision", bench.commit, "-o", str(plan))
    result = run("pull", "--plan", str(plan))

    assert 0 == result.exit_code, result.stderr
    assert result.stdout.strip().endswith(bench.commit)
    assert 2 == run("pull", "--plan", str(plan), "--revision", "x").exit_code


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


@pytest.mark.usefixtures("store")
def test_a_dry_run_that_does_not_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not fit the answer is no, and what is short is told."""
    monkeypatch.setattr(space, "look", lambda _: space.Room(1000, None, None))
    result = run("pull", REPO, "--dry-run")

    assert 1 == result.exit_code
    assert "short" in result.stdout
    assert bench.commit in result.stdout


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


@pytest.mark.parametrize("words", [("weights", "list"), ("pull", REPO, "--json")])
@pytest.mark.usefixtures("store", "bench")
def test_an_output_that_is_full(words: tuple[str, ...]) -> None:
    """A full disk behind stdout is no bug of ours."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "kimideploy", *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert ended.returncode in (3, 4)
    assert "full" in ended.stderr or "No space left" in ended.stderr
    assert "bug" not in ended.stderr


@pytest.mark.usefixtures("store")
def test_a_reader_who_leaves(bench: Bench) -> None:
    """`pull --json | head -1` ends the pull as Ctrl-C does: it is not done, and says so."""
    command = [sys.executable, "-m", "kimideploy", "pull", REPO, "--json", "--max-rate", "100kB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert 130 == process.wait(30)

    assert b"" == said
    assert not (bench.top / REPO / bench.commit).exists()


@pytest.mark.usefixtures("store")
def test_bundle_and_unbundle(bench: Bench, tmp_path: Path) -> None:
    """A bundle is named on stdout, and unpacks into another store."""
    folder = bench.pull().folder
    made = run("weights", "bundle", REPO, "-o", str(tmp_path / "b"), "--split", "1MiB")
    back = run("weights", "unbundle", made.stdout.strip(), "--to", str(tmp_path / "other"))

    assert (0, 0) == (made.exit_code, back.exit_code)
    assert files_of(folder) == files_of(Path(back.stdout.strip()))


def unplugged(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no network at all, not even the loopback."""
    return subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "kimideploy", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.usefixtures("store")
def test_offline_sends_nothing(bench: Bench, tmp_path: Path) -> None:
    """Without a network a pull of what is here, a verification and a bundle all work."""
    missing_part(os.geteuid() != 0, "a network namespace needs root")
    bench.pull()
    to = ["--split", "1MiB", "-o", str(tmp_path / "b")]
    for words in (
        ["pull", REPO, "--offline"],
        ["weights", "verify", "--full", "--offline"],
        ["weights", "bundle", REPO, *to],
        ["weights", "unbundle", str(tmp_path / "b"), "--to", str(tmp_path / "other")],
        ["weights", "list", "--code"],
    ):
        ended = unplugged(words)
        assert 0 == ended.returncode, (words, ended.stderr)


def test_offline_opens_no_socket(bench: Bench, store: Path) -> None:
    """--offline and HF_HUB_OFFLINE connect to nobody, whether it works out or not."""
    bench.pull()
    script = (
        "import sys\n"
        "def hook(name, words):\n"
        "    if name in ('socket.connect', 'socket.getaddrinfo'): sys.exit(99)\n"
        "sys.addaudithook(hook)\n"
        "from kimideploy.cli.app import main\n"
        "main()\n"
    )

    def code(*words: str, **env: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            check=False,
            env={**os.environ, **env},
        ).returncode

    assert 99 == code("pull", "org/other")
    assert 4 == code("pull", "org/other", "--offline")
    assert 4 == code("pull", "org/other", HF_HUB_OFFLINE="1")
    assert 0 == code("pull", REPO, "--offline")
    (store / REPO / bench.commit / "config.json").unlink()
    assert 4 == code("pull", REPO, "--offline")
    assert 1 == code("weights", "verify", "--offline")


def test_offline_from_a_folder(bench: Bench, tmp_path: Path) -> None:
    """Without the hub a pull that was begun is ended by a folder that has the rest."""
    bench.hub.faults = [Fault(shards(4)[3], "status", 999, status=503)]
    with pytest.raises(Exception, match="503"):
        bench.pull()
    mine = kimi(tmp_path / "mine")
    bench.hub.log.clear()
    bench.pull(offline=True, adopt=(mine,))

    assert [] == bench.hub.log


@pytest.mark.usefixtures("store")
def test_changed_code_on_the_command_line(bench: Bench) -> None:
    """pull and serve refuse other code, and take it where --accept-code is said."""
    bench.commit = bench.hub.add("moonshotai/Kimi-K2.7-Code", bench.folder)
    assert 0 == run("pull", "kimi-k2.7-code").exit_code
    (bench.folder / "modeling_kimi_k25.py").write_text("import os\n")
    bench.commit = bench.hub.add("moonshotai/Kimi-K2.7-Code", bench.folder)
    refused = run("pull", "kimi-k2.7-code")

    assert 4 == refused.exit_code
    assert "modeling_kimi_k25.py has changed" in plain(refused.stderr)
    assert 0 == run("pull", "kimi-k2.7-code", "--accept-code").exit_code


def test_workers(bench: Bench, store: Path) -> None:
    """--max-workers reaches the fetching."""
    bench.grown(count=6, size=300_000)
    bench.hub.faults = [Fault(r"\?until", "slow", 99, rate=1e6)]
    ended = run("pull", REPO, "--max-workers", "1", "--json")
    moved = [json.loads(line) for line in ended.stdout.splitlines() if '"moved"' in line]

    assert 1 == max(len(event.get("active", ())) for event in moved)
    assert (store / REPO / bench.commit).is_dir()


@pytest.mark.usefixtures("store")
def test_without_the_xet_store(bench: Bench) -> None:
    """--no-xet does not ask for a token of the store, which is asked for otherwise."""
    bench.grown(count=1, size=9_000_000)
    files = bench.hub.repos[REPO][bench.commit]
    files[shards(1)[0]] = replace(files[shards(1)[0]], xet="ab" * 32)
    bench.hub.faults = [Fault("xet-read-token", "status", 9, status=404)]
    asked = []
    for words in (("--no-xet", "--to", str(bench.top / "a")), ("--to", str(bench.top / "b"))):
        bench.hub.log.clear()
        assert 0 == run("pull", REPO, *words).exit_code
        asked.append(any("xet-read-token" in one.path for one in bench.hub.log))

    assert [False, True] == asked


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


@pytest.mark.usefixtures("store")
def test_the_token_is_never_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is in no output, no file of the store and no error."""
    monkeypatch.setenv("HF_TOKEN", "hf_poison")
    bench.hub.token = "hf_poison"
    good = spawn("pull", REPO, "--json", env=dict(os.environ))
    bench.hub.faults = [Fault("GET .*tree", "status", 99, status=401)]
    bench.grown(seed=8)
    bad = spawn("pull", REPO, "--json", env=dict(os.environ))

    assert (0, 4) == (good.returncode, bad.returncode)
    assert "hf_poison" not in good.stdout + good.stderr + bad.stdout + bad.stderr
    files = [path for path in bench.top.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hf_poison" in path.read_bytes()]


def test_through_a_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is asked, for the listing and for the bytes."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())
            names = ("Range", "Accept-Encoding", "Authorization")
            head = {name: self.headers[name] for name in names if self.headers[name]}
            try:
                answer = opener.open(urllib.request.Request(self.path, headers=head))
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "date", "server", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    class _Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://user:pass@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    try:
        pulled = bench.pull()
    finally:
        server.shutdown()
        server.server_close()

    assert [one for one in asked if "safetensors?until" in one]
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


@pytest.mark.parametrize(
    "address", ["mirror.example", "http://127.0.0.1:99999", "http://x\ny", "https://", "ftp://x"]
)
@pytest.mark.usefixtures("store")
def test_an_endpoint_that_is_none(address: str) -> None:
    """A slip in HF_ENDPOINT is told at once, and not retried; no library's own words come."""
    ended = spawn("pull", REPO, env={**os.environ, "HF_ENDPOINT": address})

    assert 2 == ended.returncode
    assert ended.stderr.startswith("error: HF_ENDPOINT ")
    assert 3 == len(ended.stderr.splitlines())


@pytest.mark.usefixtures("store", "bench")
def test_a_token_that_is_none() -> None:
    """A token with letters that no header takes is told as that, at once."""
    ended = spawn("pull", REPO, env={**os.environ, "HF_TOKEN": "tökén"})

    assert 2 == ended.returncode
    assert "HF_TOKEN holds signs that no token has" in ended.stderr


@pytest.mark.usefixtures("store")
def test_a_dry_run_tells_its_tries(bench: Bench) -> None:
    """Who waits for a hub that fails is told so, with the document alone on stdout."""
    bench.hub.faults = [Fault("GET .*tree", "status", 1, status=503)]
    ended = spawn("pull", REPO, "--dry-run", "--json", env=dict(os.environ))

    assert "the hub answered 503; again in" in ended.stderr
    assert bench.commit == json.loads(ended.stdout)["revision"]
