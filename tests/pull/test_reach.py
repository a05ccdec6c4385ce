"""What a pull reaches the hub by: offline, proxies, addresses and tokens."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.run import spawn
from tests.hub.repos import kimi, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, mismatches, missing_part


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
