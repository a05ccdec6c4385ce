"""The stand-in as a process: it comes up, answers, dies as told, and leaves nothing behind."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys

import pytest

from tests.contract.cases import CHAT, Case, chat
from tests.contract.servers import FLAGS, stand_in

VLLM = ["vllm", "serve", "m", *FLAGS]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with 0, and its port is free again."""
    with stand_in(VLLM) as endpoint:
        endpoint.process.send_signal(number)
        assert endpoint.process.wait(10) == 0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", endpoint.port))


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("oom", 1, "CUDA out of memory"),
        ("no-kv", 1, "No available memory for the cache blocks"),
        ("version", 1, "are not supported"),
        ("port", 1, "Address already in use"),
        ("nccl", 1, "NCCL error"),
        ("exit0", 0, "fatal error"),
    ],
)
def test_it_dies_as_told(way: str, code: int, said: str) -> None:
    """Each way to fail ends the load with the engine's own words and exit code."""
    words = [sys.executable, "-m", "kimideploy.rehearsal", "--load-seconds", "0", "--fail", way]
    done = subprocess.run(
        [*words, "--", *VLLM], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == code
    assert said in done.stdout
    assert "Application startup complete" not in done.stdout


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\xff\xfe\r\n\r\n",
    ],
)
def test_hostile_requests(raw: bytes) -> None:
    """A request that is no request is refused, and the next one is answered."""
    with stand_in(VLLM) as endpoint:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as hostile:
            hostile.sendall(raw)
            hostile.shutdown(socket.SHUT_WR)
            hostile.recv(4096)
        assert endpoint.ask(Case("q", "POST", CHAT, 200, chat())).status == 200


def test_deep_json() -> None:
    """JSON nested beyond reason is refused with 400."""
    with stand_in(VLLM) as endpoint:
        deep = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert endpoint.ask(Case("deep", "POST", CHAT, 400, deep)).status == 400


def test_a_connection_is_kept() -> None:
    """Two requests go over one connection."""
    with stand_in(VLLM) as endpoint:
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
        for _ in range(2):
            connection.request("GET", "/v1/models")
            assert connection.getresponse().read()
        connection.close()
