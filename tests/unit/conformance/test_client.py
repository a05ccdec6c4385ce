"""Requests against a real server on loopback that answers as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kimideploy.apply.ready import Standing, judge_models, standing
from kimideploy.conformance.client import Client, Reply, Unreachable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
EVENTS = HEAD % b"text/event-stream" + b"\r\n"


@contextmanager
def _answering(*answers: bytes) -> Iterator[tuple[Client, list[bytes]]]:
    """A client, and the requests that came; each connection gets the next of *answers*."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    seen.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        yield Client(f"http://127.0.0.1:{server.getsockname()[1]}", key="s3cret"), seen
        thread.join(5)


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_an_answer_comes_back_with_its_status() -> None:
    """Also one that is no success."""
    with _answering(_whole(b'{"a": 1}', b"400 Bad Request")) as (client, seen):
        reply = client.post("/v1/x", {"q": "é"}, timeout=5)

    assert (400, {"a": 1}) == (reply.status, reply.json())
    assert b"Authorization: Bearer s3cret" in seen[0]


def test_a_body_that_is_no_json_is_none() -> None:
    """No exception, whatever is sent."""
    assert [None, None] == [Reply(200, body).json() for body in (b"<html>", b"[" * 100_000)]


def test_nobody_there_is_unreachable() -> None:
    """A refused connection has its own exception, with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(Unreachable, match="refused"):
        Client(f"http://127.0.0.1:{port}").get("/health", timeout=5)


def test_silence_is_unreachable() -> None:
    """A server that accepts and says nothing does not hold us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}")

        with pytest.raises(Unreachable, match="no answer in time"):
            client.get("/health", timeout=0.05)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", HEAD % b"x" + b"Content-Length: 9\r\n\r\na"]
)
def test_what_is_no_http_is_unreachable(answer: bytes) -> None:
    """Something else listens there, or it broke off."""
    with _answering(answer) as (client, _), pytest.raises(Unreachable):
        client.get("/health", timeout=5)


def test_a_stream_yields_its_events() -> None:
    """Comments and blank lines are no events; [DONE] ends it."""
    body = b': ping\n\ndata: {"n": 1}\n\ndata:{"n": 2}\r\n\r\ndata: [DONE]\n\ndata: {"n": 3}\n\n'

    with _answering(EVENTS + body) as (client, _):
        assert [{"n": 1}, {"n": 2}] == list(client.stream("/v1/x", {}, timeout=5))


@pytest.mark.parametrize("body", [b'data: {"n": 1}\n\n', b"data: {oops\n\n", b""])
def test_a_stream_that_breaks_off_is_unreachable(body: bytes) -> None:
    """Without [DONE] nobody knows whether it was all."""
    with _answering(EVENTS + body) as (client, _), pytest.raises(Unreachable):
        list(client.stream("/v1/x", {}, timeout=5))


def test_an_answer_that_is_no_stream_comes_whole() -> None:
    """Errors are not streamed."""
    with _answering(_whole(b"no", b"400 Bad Request")) as (client, _):
        (reply,) = client.stream("/v1/x", {}, timeout=5)

    assert (400, b"no") == (reply.status, reply.body)


# --- readiness ---------------------------------------------------------------------------


def _stands(*answers: bytes) -> Standing:
    with _answering(*answers) as (client, _):
        return standing(client, health="/health", models="/v1/models", model="kimi")


def test_healthy_and_named_is_ready() -> None:
    """An empty body of /health is enough, the name is not."""
    models = b'{"data": [{"id": "lora"}, {"id": "kimi"}]}'

    assert "ready" == _stands(_whole(b""), _whole(models)).state


def test_healthy_without_a_list_is_loading() -> None:
    """Some engines are healthy before they have a model."""
    assert "loading" == _stands(_whole(b""), _whole(b"", b"404 Not Found")).state


def test_unhealthy_is_loading() -> None:
    """llama-server answers 503 while it loads."""
    assert Standing("loading", "/health answers 503") == _stands(_whole(b"", b"503 Loading"))


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b'{"data": [{"id": "kimi"}]}', "ready"),
        (b'{"data": [{"id": "other"}]}', "wrong"),
        (b'{"data": []}', "loading"),
        (b'{"data": ["kimi"]}', "loading"),
        (b'{"data": null}', "loading"),
        (b"[]", "loading"),
        (b"", "loading"),
    ],
)
def test_lists_of_models_are_judged(body: bytes, state: str) -> None:
    """Only another name is final; what can't be read is not ready yet."""
    assert state == judge_models(Reply(200, body), "kimi").state
