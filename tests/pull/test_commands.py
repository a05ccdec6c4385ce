"""`kimideploy pull` as a command: words, exit codes, streams, terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kimideploy.weights import space
from tests.cli.run import run, spawn
from tests.hub.repos import WANTED, safetensors, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, plain

ALL = len(WANTED) + 4


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
def test_a_dry_run_that_does_not_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not fit the answer is no, and what is short is told."""
    monkeypatch.setattr(space, "look", lambda _: space.Room(1000, None, None))
    result = run("pull", REPO, "--dry-run")

    assert 1 == result.exit_code
    assert "short" in result.stdout
    assert bench.commit in result.stdout


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
def test_a_dry_run_tells_its_tries(bench: Bench) -> None:
    """Who waits for a hub that fails is told so, with the document alone on stdout."""
    bench.hub.faults = [Fault("GET .*tree", "status", 1, status=503)]
    ended = spawn("pull", REPO, "--dry-run", "--json", env=dict(os.environ))

    assert "the hub answered 503; again in" in ended.stderr
    assert bench.commit == json.loads(ended.stdout)["revision"]
