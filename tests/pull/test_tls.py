"""Encrypted hubs: trusted by SSL_CERT_FILE, refused at once and in words where they are not."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from kimideploy.errors import WeightsError
from kimideploy.weights.hub import Repository
from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Pause, Trouble
from kimideploy.weights.wire import Wire
from tests.cli.run import spawn
from tests.hub.repos import kimi, shards
from tests.hub.server import Hub, running
from tests.pull.conftest import REPO, Bench, files_of


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate of this machine's address with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    words = ("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1", "-addext")
    more = ["subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    argv = ["openssl", *words[0].split(), words[1], *more]
    subprocess.run(argv, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def hub(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Hub, Bench]]:
    """Yield an encrypted hub, and a store."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    folder = kimi(tmp_path / "origin")
    with running(context) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found, Bench(found, folder, tmp_path / "store", found.add(REPO, folder))


def test_trusted_by_the_environment(hub: tuple[Hub, Bench], certificate: Path) -> None:
    """SSL_CERT_FILE holds for the listing and for the bytes."""
    found, bench = hub
    env = {**os.environ, "SSL_CERT_FILE": f"{certificate}.crt"}
    ended = spawn("pull", REPO, "--to", str(bench.top), env=env)

    assert 0 == ended.returncode, ended.stderr
    assert ended.stdout.strip().endswith(bench.commit)
    assert found.url.startswith("https://")
    assert files_of(Path(ended.stdout.strip())).items() <= files_of(bench.folder).items()


def test_nothing_encrypted_is_taken_for_bytes(
    hub: tuple[Hub, Bench], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends a connection while bytes wait in it is handed the file's bytes, or none."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    found, bench = hub
    bench.grown(count=1, size=3_000_000)
    name = shards(1)[0]
    entry, whole = found.repos[REPO][bench.commit][name], (bench.folder / name).read_bytes()
    wire = Wire(Repository(REPO, bench.commit, found.url), Pause(Event()), timeout=5)
    body = wire.open(Item(name, entry.size, sha256=entry.sha256), 0, entry.size)
    view = memoryview(bytearray(1 << 19))
    got = bytes(view[: body.readinto(view[:100_000])])
    _waiting(body._answer.sock)
    body.abort()
    with suppress(Trouble):
        while count := body.readinto(view):
            got += view[:count]
    wire.close()

    assert got == whole[: len(got)]


def _waiting(sock: socket.socket | None) -> None:
    """Wait until bytes lie in the socket that nobody has read."""
    assert sock is not None
    with select.epoll() as poll:
        poll.register(sock.fileno(), select.EPOLLIN)
        assert poll.poll(10)


def test_not_trusted(hub: tuple[Hub, Bench]) -> None:
    """A certificate that nobody vouches for ends a pull at once, with the way out."""
    with pytest.raises(WeightsError, match="certificate is not trusted") as caught:
        hub[1].pull()

    assert "SSL_CERT_FILE" in (caught.value.hint or "")
