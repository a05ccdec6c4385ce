"""Endpoints that mean no good: each ends in a clear word, within its time."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kimideploy.conformance.client import LARGEST, Client, Unreachable
from kimideploy.conformance.verdict import Verdict
from tests.conformance.endpoint import PROMISE, broken, raw, verdict_on

_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
#: seconds each request may take
_LONGEST = 1.0


def _endless(connection: socket.socket) -> None:
    connection.sendall(_EVENTS)
    while True:
        connection.sendall(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
        time.sleep(0.01)


def _drip(connection: socket.socket) -> None:
    for byte in _WHOLE + b"X-Long: " + b"a" * 10_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def _huge(connection: socket.socket) -> None:
    connection.sendall(_WHOLE + b"Content-Length: 1073741824\r\n\r\n")
    piece = b" " * (1 << 20)
    for _ in range(1024):
        connection.sendall(piece)


def _said(data: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(data)

    return answer


HOSTILE: dict[str, Callable[[socket.socket], None]] = {
    "an endless stream": _endless,
    "a byte now and then": _drip,
    "a body of 1 GB": _huge,
    "silence": lambda _: time.sleep(30),
    "no HTTP": _said(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": _said(b""),
    "invalid UTF-8": _said(_WHOLE + b"Content-Length: 4\r\n\r\n\xff\xfe{}"),
    "invalid UTF-8 in a stream": _said(_EVENTS + b"data: \xff\xfe\n\n"),
    "no JSON": _said(_WHOLE + b"Content-Length: 9\r\n\r\n<html>!!!"),
    "no JSON in a stream": _said(_EVENTS + b"data: {oops\n\n"),
    "JSON of any depth": _said(_WHOLE + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000),
    "JSON of other types": _said(
        _WHOLE + b"Content-Length: 58\r\n\r\n"
        b'{"data": 7, "choices": [{"message": {"content": [1, 2]}}]}'
    ),
    "a redirect": _said(
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    ),
    "a body cut off": _said(_WHOLE + b"Content-Length: 500\r\n\r\n{"),
    "headers without end": _said(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000),
    "a chunk of no size": _said(_WHOLE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_endpoint_ends_in_time(name: str) -> None:
    """A verdict comes, the main promises are broken in words, and no deadline is passed."""
    began = time.monotonic()
    with raw(HOSTILE[name]) as url:
        verdict = verdict_on(url, PROMISE, suite="quick", longest=_LONGEST)

    assert isinstance(verdict, Verdict)
    assert {"reasoning", "tool call", "history is used"} <= set(broken(verdict))
    assert all(check.evidence.isprintable() for check in verdict.checks)
    assert time.monotonic() - began < 15 * _LONGEST


def test_a_redirect_is_not_followed() -> None:
    """Where it leads is told, and nobody is asked there."""
    with raw(HOSTILE["a redirect"]) as url:
        verdict = verdict_on(url, suite="quick", longest=_LONGEST)

    check = next(check for check in verdict.checks if check.name == "tool call")
    assert "status 302, to 'http://169.254.169.254/'" in check.evidence


def test_no_more_is_read_than_an_answer_has() -> None:
    """A body of 1 GB is left at 32 MiB."""
    with raw(_huge) as url, pytest.raises(Unreachable, match="longer than 32 MiB"):
        Client(url).get("/v1/models", timeout=20)
    assert LARGEST == 32 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody believes, with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out",
         f"{path}.crt"], check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def _over_tls(certificate: Path, answer: bytes) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def work(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as safe:
                    safe.recv(65536)
                    safe.sendall(answer)

    return work


@pytest.mark.parametrize("believed", [False, True])
def test_a_certificate_must_be_believed(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, *, believed: bool
) -> None:
    """An unknown authority is refused by name; SSL_CERT_FILE makes it known."""
    if believed:
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = _WHOLE + b"Content-Length: 2\r\n\r\n{}"
        work = _over_tls(certificate, answer)
        threading.Thread(target=work, args=(server,), daemon=True).start()
        client = Client(f"https://127.0.0.1:{server.getsockname()[1]}/v1")
        if believed:
            assert 200 == client.get("/v1/models", timeout=10).status
        else:
            with pytest.raises(Unreachable, match="certificate is not believed"):
                client.get("/v1/models", timeout=10)
        server.shutdown(socket.SHUT_RDWR)


def test_tls_against_a_plain_port() -> None:
    """Who speaks no TLS is told apart from who has a bad certificate."""
    plain = _said(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with raw(plain) as url, pytest.raises(Unreachable, match="TLS failed"):
        Client(url.replace("http://", "https://")).get("/v1/models", timeout=10)
