"""The guard as a server: paths, keys, limits, streams, and what it does when something fails."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kimideploy.conformance.client import Client
from kimideploy.conformance.run import run as run_suite
from kimideploy.conformance.send import Endpoint
from tests.conformance.endpoint import PROMISE, broken, raw
from tests.contract.servers import free_port
from tests.guard.door import CHAT, QUESTION, Door, chat_request, door, raw_request

#: routes engines have that nobody beyond this machine may reach
DANGEROUS = (
    "/invocations", "/pause", "/resume", "/update_weights", "/tokenize", "/server_info",
    "/get_server_info", "/load_lora_adapter", "/v1/load_lora_adapter", "/sleep", "/wake_up",
    "/collective_rpc", "/reset_prefix_cache", "/flush_cache", "/docs", "/openapi.json", "/version",
    "/slots", "/props", "/v1/files", "/v1/audio/transcriptions", "/generate", "/abort_request",
)  # fmt: skip
TRICKS = (
    b"/v1//chat/completions", b"//v1/chat/completions", b"/v1/./chat/completions",
    b"/v1/x/../chat/completions", b"/V1/chat/completions", b"/v1/chat/completions/",
    b"/v1/chat%2fcompletions", b"/%76%31/chat/completions", b"/v1/chat/completions;x",
    b"/v1/models/..%2f..%2fpause", b"/v1/models/../../pause", b"/health/../pause",
    b"http://127.0.0.1/pause", b"*", b"/v1/chat/completions%00", b"/v1/chat\\completions",
)  # fmt: skip


# --- paths -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DANGEROUS)
def test_what_is_not_of_the_api_is_not_there(open_door: Door, path: str) -> None:
    """404 from the guard itself, by GET and by POST."""
    bodies: tuple[object, ...] = (None, {})
    for body in bodies:
        reply = open_door.ask(path, body)
        assert 404 == reply.status
        assert "not_found_error" == reply.json()["error"]["type"]


@pytest.mark.parametrize("path", TRICKS)
def test_tricks_with_paths_lead_nowhere(open_door: Door, path: bytes) -> None:
    """Whatever a path is spelt like, it is another path, or no request at all."""
    body = json.dumps(QUESTION).encode()
    for method in (b"GET", b"POST"):
        answer = open_door.raw(raw_request(b"%s %s" % (method, path), body))
        assert answer.split(b" ")[1] in (b"404", b"400")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GET"])
def test_other_methods_are_not_there(open_door: Door, method: str) -> None:
    """A path has one method."""
    assert 404 == open_door.ask(CHAT, b"{}", method=method).status


def test_a_query_reaches_no_engine(open_door: Door) -> None:
    """It is left out: the path is what was allowed."""
    assert 200 == open_door.ask(f"{CHAT}?x=/../pause", QUESTION).status


# --- the contract ------------------------------------------------------------------------


def test_an_endpoint_behind_a_guard_keeps_every_promise(engine: str) -> None:
    """The whole suite through the guard, which demands a key and may repair."""
    with door(engine, "--missing", "repair") as found:
        sender = Endpoint(Client(found.url), watch=lambda *_: None, longest=30)
        verdict = run_suite(sender, PROMISE, url=found.url, suite="full", seed=7)
        again = run_suite(sender, PROMISE, url=found.url, suite="full", seed=7)

    lacking = ["key is asked for"]
    assert lacking == broken(verdict)
    assert lacking == broken(again)


def test_both_fields_come_and_go(open_door: Door) -> None:
    """Whole and streamed, under both names; what comes back under either reaches the engine."""
    message = open_door.ask(CHAT, QUESTION).json()["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"]

    events = open_door.ask(CHAT, {**QUESTION, "stream": True}).body.decode().split("\n\n")
    deltas = [json.loads(e[6:])["choices"][0]["delta"] for e in events if e.startswith("data: {")]
    for name in ("reasoning", "reasoning_content"):
        assert message["reasoning"] == "".join(delta.get(name) or "" for delta in deltas)
    assert "data: [DONE]" in events


def test_lost_reasoning_is_refused_in_known_words(open_door: Door) -> None:
    """As Moonshot's API does, before the engine is bothered."""
    call = {"id": "x", "type": "function", "function": {"name": "t", "arguments": "{}"}}
    lost = {"role": "assistant", "content": "", "tool_calls": [call]}
    body = {"messages": [*QUESTION["messages"], lost]}

    reply = open_door.ask(CHAT, body)

    assert 400 == reply.status
    assert (
        "reasoning_content is missing in assistant tool call message at index 1"
        in (reply.json()["error"]["message"])
    )


def test_what_is_no_request_is_refused(open_door: Door) -> None:
    """Bytes, lists, endless depth and wrong types end as a 400, and the guard lives."""
    for body in (b"", b"\xff", b"[]", b"{", b"[" * 100_000, b'{"a":' * 50_000):
        assert 400 == open_door.ask(CHAT, body, method="POST").status
    for messages in (7, [7], [{"role": 7}], [{"role": "assistant", "tool_calls": [7]}], [None]):
        assert 400 == open_door.ask(CHAT, {"messages": messages}).status
    assert 200 == open_door.ask(CHAT, QUESTION).status


# --- when something fails ----------------------------------------------------------------


def test_without_an_engine_it_says_so() -> None:
    """502, and a health that is not 200; the guard itself lives on."""
    with door(f"http://127.0.0.1:{free_port()}", "--reads", "reasoning") as found:
        for _ in range(2):
            reply = found.ask(CHAT, QUESTION)
            assert (502, "the engine can't be reached") == (
                reply.status, reply.json()["error"]["message"],
            )  # fmt: skip
        assert 503 == found.ask("/health").status


def test_a_stream_that_breaks_off_is_not_ended() -> None:
    """The client must see that it was not all: no [DONE], and no last chunk."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'

    def answer(connection: socket.socket) -> None:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(event), event))

    with raw(answer) as url, door(url, "--reads", "reasoning") as found:
        request = json.dumps({**QUESTION, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", found.port), timeout=30) as connection:
            connection.sendall(chat_request(request))
            came = b""
            while piece := connection.recv(65536):
                came += piece

    assert event in came
    assert not came.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in came


def test_events_are_not_held_back() -> None:
    """Each event is there before the engine has sent the next."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    event = b'data: {"choices": [{"index": 0, "delta": {"reasoning": "a"}}]}\n\n'
    seen = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(event), event))
        assert seen.wait(20), "the first event was held back"
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))

    with raw(answer) as url, door(url, "--reads", "reasoning", "--missing", "repair") as found:
        request = json.dumps({**QUESTION, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", found.port), timeout=30) as connection:
            connection.sendall(chat_request(request))
            came = b""
            while b'"reasoning_content"' not in came:
                came += connection.recv(65536)
            seen.set()
            while piece := connection.recv(65536):
                came += piece
                if came.endswith(b"0\r\n\r\n"):
                    break

    assert 2 == came.count(b'"reasoning_content":"a"')


def test_who_goes_away_stops_the_engine() -> None:
    """The connection to the engine ends with the client's: no tokens are made for nobody."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.settimeout(20)
        if connection.recv(1) == b"":
            ended.set()

    with raw(answer) as url, door(url, "--reads", "reasoning") as found:
        request = json.dumps(QUESTION).encode()
        connection = socket.create_connection(("127.0.0.1", found.port), timeout=30)
        connection.sendall(chat_request(request))
        time.sleep(0.5)  # until the request has gone through: nothing tells us from outside
        connection.close()
        assert ended.wait(20)


@contextmanager
def recorded(seen: list[bytes], body: bytes) -> Iterator[str]:
    """A server that keeps the bodies that came, and answers *body*."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_sampling_is_set_where_nothing_is_said() -> None:
    """Temperature and top_p of the model, unless the client says its own; then not a byte moves."""
    seen: list[bytes] = []
    own = json.dumps({"temperature": 0.5, "top_p": 0.5, "odd": 1.0, **QUESTION}, indent=3).encode()

    with recorded(seen, b'{"choices": []}') as url, door(url, "--reads", "reasoning") as found:
        found.ask(CHAT, QUESTION)
        found.ask(CHAT, own)

    first = json.loads(seen[0])
    assert (1.0, 0.95) == (first["temperature"], first["top_p"])
    assert own == seen[1]


def test_metrics_tell_what_was_done(open_door: Door) -> None:
    """Requests by path and status, and what was mapped and lost."""
    text = open_door.ask("/metrics").body.decode()

    assert 'kimideploy_guard_requests_total{path="chat",status="200"}' in text
    assert 'kimideploy_guard_requests_total{path="none",status="404"}' in text
    assert "kimideploy_guard_in_flight 1" in text


def test_what_comes_packed_is_asked_for_unpacked() -> None:
    """The engine is told to pack nothing, whatever the client takes."""
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with listening(seen, answer) as url, door(url, "--reads", "reasoning") as found:
        found.ask(CHAT, QUESTION, headers={"Accept-Encoding": "gzip"})

    assert b"accept-encoding: identity" in seen[0].lower()


@contextmanager
def listening(seen: list[bytes], answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that keeps the heads that came."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        seen.append(connection.recv(65536))
                        answer(connection)

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_client_may_leave_at_the_end_of_an_answer() -> None:
    """The thought is remembered before the last word is sent, and is there for the next turn."""
    call = {"index": 0, "id": "call_7", "type": "function",
            "function": {"name": "t", "arguments": "{}"}}  # fmt: skip
    deltas: list[dict[str, object]] = [{"reasoning": "why"}, {"tool_calls": [call]}]
    events = [json.dumps({"choices": [{"index": 0, "delta": one}]}) for one in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    text = "".join(f"data: {one}\n\n" for one in [*events, json.dumps(end), "[DONE]"]).encode()
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        if b'"role":"tool"' in seen[-1].replace(b" ", b""):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(text), text)
        )
        with suppress(OSError):
            connection.recv(1)

    with (
        listening(seen, answer) as url,
        door(url, "--reads", "reasoning", "--missing", "repair") as found,
    ):
        with socket.create_connection(("127.0.0.1", found.port), timeout=30) as connection:
            connection.sendall(chat_request(json.dumps({**QUESTION, "stream": True}).encode()))
            came = b""
            while b"[DONE]" not in came:
                came += connection.recv(65536)
        lost = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": "call_7", "content": "1"}
        reply = found.ask(CHAT, {"messages": [*QUESTION["messages"], lost, result]})

    assert 200 == reply.status
    assert "repaired=1, renamed=1" == reply.headers["x-kimideploy-guard"]
    assert b'"reasoning":"why"' in seen[-1]
    assert b'"functions.t:0"' in seen[-1]
