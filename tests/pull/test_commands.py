"""`kimideploy pull` and `kimideploy weights`: words, exit codes, streams, terminals, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.run import run, spawn
from tests.hub.repos import WANTED, kimi, shards
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
        (("pull", REPO, "--max-rate", "0"), 2, "--max-rate is at least"),
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


def test_two_quants_of_one_commit(bench: Bench, store: Path, tmp_path: Path) -> None:
    """What two patterns choose of one commit lies apart, each whole."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    for quant in ("Q2_K", "Q4_K"):
        (folder / f"Kimi-{quant}.gguf").write_bytes(b"GGUF" + quant.encode() * 20_000)
    commit = bench.hub.add("org/gguf", folder)
    made = [run("pull", "org/gguf", "--files", f"*{quant}*.gguf") for quant in ("Q2_K", "Q4_K")]
    folders = [store / "org/gguf" / quant / commit for quant in ("Q2_K", "Q4_K")]

    assert [0, 0] == [one.exit_code for one in made]
    assert [f"{one}\n" for one in folders] == [one.stdout for one in made]
    assert ["Kimi-Q2_K.gguf"] == list(files_of(folders[0]))


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


@pytest.mark.usefixtures("store")
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in HF_ENDPOINT is told at once, and not retried."""
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    result = run("pull", REPO)

    assert 2 == result.exit_code
    assert "HF_ENDPOINT 'mirror.example' is no address" in result.stderr
