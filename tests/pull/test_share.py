"""The small hub of one node for the others: what it gives, to whom, and what it does not."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kimideploy.errors import WeightsError
from kimideploy.weights.manifest import read_manifest
from kimideploy.weights.pull import pull
from kimideploy.weights.resolve import Ways, known
from kimideploy.weights.selection import Wanted
from kimideploy.weights.share import Share, files_of
from tests.hub.repos import kimi
from tests.hub.server import running

REPO, TOKEN = "moonshotai/Kimi-K2.7-Code", "a-token-of-this-test"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that was pulled and proved."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add(REPO, kimi(tmp_path / "origin", count=2, size=3_000_000))
        return pull(Wanted(REPO), tmp_path / "first", Ways(), lambda _: None).folder


@contextmanager
def given(folder: Path, *, idle: float = 60) -> Iterator[Share]:
    """Yield a server of *folder*."""
    server = Share(("127.0.0.1", 0), files_of([folder]), TOKEN, idle=idle)
    loop = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    loop.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        loop.join(5)


def ask(
    server: Share, path: str, token: str | None = TOKEN, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    words = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        connection.request("GET", path, headers=words | headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers.items()), answer.read()
    finally:
        connection.close()


def test_a_pull_from_a_node(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual pull takes all from a node, with the manifest in hand and no hub to ask."""
    manifest = read_manifest(folder)
    assert manifest is not None
    with given(folder) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        ways = Ways(manifests=(manifest,), xet=False)
        found = pull(Wanted(REPO), tmp_path / "second", ways, lambda _: None)

    assert folder.name == found.folder.name
    for item in manifest.items:
        assert (folder / item.path).read_bytes() == (found.folder / item.path).read_bytes()


@pytest.mark.parametrize(
    ("revision", "quant", "beside", "is_meant"),
    [
        (None, None, (), True),
        ("main", None, (), True),
        ("{commit}", None, (), True),
        ("0" * 40, None, (), False),
        (None, "UD-Q2_K_XL", (), False),
        (None, None, ("mmproj.gguf",), False),
    ],
)
def test_which_manifest_is_meant(
    folder: Path, revision: str | None, quant: str | None, beside: tuple[str, ...], is_meant: bool
) -> None:
    """A manifest that came along counts for its repository and quant, whatever names its commit."""
    manifest = read_manifest(folder)
    assert manifest is not None
    named = revision.format(commit=manifest.revision) if revision is not None else None
    wanted = replace(Wanted(REPO, named), quant=quant, beside=beside)
    ways = Ways(manifests=(manifest,), offline=True)

    if is_meant:
        assert manifest == known(wanted, Path("/nowhere"), ways)
    else:
        with pytest.raises(WeightsError, match="only the hub has"):
            known(wanted, Path("/nowhere"), ways)


def test_other_bytes_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that gives other bytes than the manifest promises is found out, and not published."""
    manifest = read_manifest(folder)
    assert manifest is not None
    shard = next(folder.glob("model-00002*"))
    raw = bytearray(shard.read_bytes())
    raw[1_000_000] ^= 1
    shard.write_bytes(raw)
    with given(folder) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        ways = Ways(manifests=(manifest,), xet=False, backoff=0.01)
        with pytest.raises(WeightsError, match=shard.name):
            pull(Wanted(REPO), tmp_path / "second", ways, lambda _: None)

    assert [] == list((tmp_path / "second").glob(f"{REPO}/[0-9a-f]*"))


def test_ranges(folder: Path) -> None:
    """A range is what was asked for, to the byte; one outside the file is refused."""
    shard = next(folder.glob("model-00001*"))
    whole, path = shard.read_bytes(), f"/{REPO}/resolve/{folder.name}/{shard.name}"
    with given(folder) as server:
        all_of_it = ask(server, path)
        some = ask(server, path, Range="bytes=10-19")
        rest = ask(server, path, Range=f"bytes={len(whole) - 3}-")
        beyond = ask(server, path, Range=f"bytes={len(whole)}-")
        odd = [ask(server, path, Range=word)[0] for word in ("bytes=9-1", "items=0-1", "bytes=-5")]

    assert (200, whole) == (all_of_it[0], all_of_it[2])
    assert (206, whole[10:20]) == (some[0], some[2])
    assert f"bytes 10-19/{len(whole)}" == some[1]["Content-Range"]
    assert (206, whole[-3:]) == (rest[0], rest[2])
    assert (416, f"bytes */{len(whole)}") == (beyond[0], beyond[1]["Content-Range"])
    assert [416, 416, 416] == odd


@pytest.mark.parametrize("token", [None, "", "b-token-of-this-test", TOKEN + "x", "ü"])
def test_without_the_token(folder: Path, token: str | None) -> None:
    """Nobody gets a byte, and nobody learns which files there are."""
    path = f"/{REPO}/resolve/{folder.name}"
    words = {} if token is None else {"Authorization": f"Bearer {token}".encode().decode("latin-1")}
    with given(folder) as server:
        said = [
            ask(server, f"{path}/{name}", None, **words) for name in ("config.json", "no-such-file")
        ]

    assert [(401, b""), (401, b"")] == [(status, body) for status, _, body in said]


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/../../etc/passwd", "/a/b/resolve/main/config.json",
        "/{repo}/resolve/{commit}/../config.json",
        "/{repo}/resolve/{commit}/.kimideploy/manifest.json",
        "/{repo}/resolve/{commit}/%2e%2e/{commit}/config.json", "/{repo}/resolve/{commit}/%00",
        "/{repo}/tree/{commit}", "/api/models/{repo}", "/{repo}/resolve/{commit}//etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else_is_there(folder: Path, path: str) -> None:
    """Only files that the manifest names are given, whatever way the path goes."""
    with given(folder) as server:
        status, _, body = ask(server, path.format(repo=REPO, commit=folder.name))

    assert (404, b"") == (status, body)


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n",
     b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n"],
)  # fmt: skip
def test_words_that_are_none(folder: Path, raw: bytes) -> None:
    """What is no request ends that connection and nothing more."""
    with given(folder) as server:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as line:
            line.sendall(raw)
            line.shutdown(socket.SHUT_WR)
            while line.recv(1 << 16):
                pass
        path = f"/{REPO}/resolve/{folder.name}/config.json"
        assert 200 == ask(server, path)[0]


def test_strangers_do_not_keep_it_up(folder: Path) -> None:
    """Whoever has no token can't keep a server that was forgotten from ending."""
    server = Share(("127.0.0.1", 0), files_of([folder]), TOKEN, idle=0.3)
    with server, socket.create_connection(("127.0.0.1", server.server_port), timeout=5):
        loop = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        loop.start()
        for _ in range(3):
            assert 401 == ask(server, "/x", None)[0]
        loop.join(10)

    assert not loop.is_alive()


def test_a_file_that_is_gone(folder: Path) -> None:
    """A file that can't be read is an answer, and the next one is given."""
    gone = next(folder.glob("model-00001*"))
    gone.unlink()
    gone.mkdir()
    with given(folder) as server:
        assert 500 == ask(server, f"/{REPO}/resolve/{folder.name}/{gone.name}")[0]
        assert 200 == ask(server, f"/{REPO}/resolve/{folder.name}/config.json")[0]


def test_it_ends_when_nobody_asks(folder: Path) -> None:
    """A server that was forgotten ends by itself."""
    server = Share(("127.0.0.1", 0), files_of([folder]), TOKEN, idle=0.1)
    with server:
        loop = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        loop.start()
        loop.join(10)

    assert not loop.is_alive()


def test_what_was_not_proved_is_not_given(tmp_path: Path) -> None:
    """A folder without a manifest of ours is refused."""
    with pytest.raises(WeightsError, match="holds no weights that a pull has proved"):
        files_of([tmp_path])
