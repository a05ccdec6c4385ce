"""Endpoints to verify: the stand-in with a fault or a key, and servers that answer raw bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kimideploy.conformance.client import Client
from kimideploy.conformance.promise import Promise
from kimideploy.conformance.run import run
from kimideploy.conformance.send import Endpoint
from kimideploy.conformance.verdict import Verdict
from tests.contract.servers import FLAGS, stand_in

KEY = "kd-test-0123456789abcdefghijklmnop"
PROMISE = Promise(
    model="kimi-k2.7-code",
    reasoning_field="reasoning",
    keeps_turns=True,
    images=True,
    has_key=True,
)
ARGV = ("vllm", "serve", "moonshotai/Kimi-K2.7-Code", *FLAGS)


@contextmanager
def misbehaving(*ways: str, argv: tuple[str, ...] = ARGV) -> Iterator[str]:
    """Yield the address of a stand-in with these faults, which asks for KEY."""
    words = [word for way in ways for word in ("--misbehave", way)]
    health = 500 if "sick" in ways else 200
    with stand_in(argv, *words, env={"VLLM_API_KEY": KEY}, health=health) as endpoint:
        yield f"http://127.0.0.1:{endpoint.port}"


def verdict_on(
    url: str, promise: Promise = PROMISE, *, suite: str = "full", longest: float = 30, seed: int = 5
) -> Verdict:
    """Return the verdict on the endpoint at *url*."""
    client = Client(url, key=KEY)
    sender = Endpoint(client, watch=lambda *_: None, longest=longest)
    return run(sender, promise, url=url, suite=suite, seed=seed)


def broken(verdict: Verdict) -> list[str]:
    """Return the names of the checks that failed."""
    return [check.name for check in verdict.checks if check.outcome == "fail"]


@contextmanager
def raw(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the address of a server that hands each connection to *answer*, once it has asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(65536)
                answer(connection)

        def work() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
