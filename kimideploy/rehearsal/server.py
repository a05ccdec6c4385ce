"""The stand-in's HTTP server: standard library, a thread a connection, HTTP/1.1.

The chat endpoint and what a launch, a probe or a dashboard asks for; no /v1/completions, no
/tokenize. An engine that binds its port before it loads is bound before it loads here too.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kimideploy.rehearsal import mischief, requests, wire
from kimideploy.rehearsal.brain import answer
from kimideploy.rehearsal.metrics import Counts, metrics
from kimideploy.rehearsal.stream import events
from kimideploy.rehearsal.types import Mind, Problem, Reply

Think = Callable[[Any, Mind, int], Reply | Problem]

_LARGEST = 32 << 20
_PIECE = 1 << 20
#: seconds for which a stand-in that is told to holds a stream back
_HELD = 1.2


class Server(ThreadingHTTPServer):
    """Serves one Mind. Bound when it is made; answers once `open` and, for good, `ready`."""

    daemon_threads = True
    #: connections that may wait to be taken, as many as uvicorn lets wait
    request_queue_size = 2048
    # Why: a port in use must be refused, as the engines refuse it.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], mind: Mind, *, key: str | None = None) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler, bind_and_activate=False)
        self.mind, self.key, self.counts = mind, key, Counts()
        #: what it answers, and who is told of each chat request and its answer
        self.think: Think = answer
        self.heard: Callable[[Any, Reply | Problem], None] = lambda *_: None
        #: no access lines
        self.quiet = False
        self.lock = threading.Lock()
        #: the last code word that was answered, for a stand-in that mixes conversations up
        self.word: str | None = None
        self.ready = threading.Event()
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def answer(self) -> None:
        """Answer one request of any method."""
        mind, path = self.server.mind, self.path.partition("?")[0]
        raw = self._body()
        if raw is None:
            return
        if not self.server.ready.is_set():
            self._refuse(Problem(503, "Loading model", "unavailable_error"))
            return
        allowed = requests.methods(path, mind)
        if not allowed:
            self._bare(404, requests.not_found(mind))
        elif self.command not in allowed:
            self._bare(405, {"detail": "Method Not Allowed"}, allow=", ".join(allowed))
        elif not requests.admitted(path, dict(self.headers), self.server.key, mind):
            self._unauthorized()
        elif path in requests.CHAT:
            self._chat(raw)
        else:
            self._get(path)

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write the access line uvicorn writes; llama-server writes none."""
        del size
        if self.server.mind.family == "llamacpp" or self.server.quiet:
            return
        host, port = self.client_address[:2]
        status = HTTPStatus(int(code))
        line = f'{host}:{port} - "{self.requestline}" {status.value} {status.phrase}'
        sys.stdout.write(f"INFO:     {line}\n")
        sys.stdout.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet about everything else."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP in uvicorn's words."""
        del code, message, explain
        self.close_connection = True
        if not getattr(self, "request_version", "").startswith("HTTP/1"):
            self.request_version = self.protocol_version
        self.requestline = getattr(self, "requestline", "")
        self.command = getattr(self, "command", None) or "GET"
        self._send(400, b"Invalid HTTP request received.", "text/plain; charset=utf-8")

    def version_string(self) -> str:
        """Name the server as the engine's own does."""
        return "llama.cpp" if self.server.mind.family == "llamacpp" else "uvicorn"

    def _get(self, path: str) -> None:
        mind = self.server.mind
        if path == "/metrics" and not mind.metrics:
            words = "This server does not support metrics endpoint. Start it with `--metrics`"
            self._refuse(Problem(501, words))
        elif path == "/metrics":
            with self.server.lock:
                text = metrics(mind, self.server.counts)
            self._send(200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")
        elif path.endswith("/models"):
            other = "other-name" in mind.mischief
            named = replace(mind, model="another-model") if other else mind
            self._json(200, wire.models(named, now=int(time.time())))
        elif path == "/version":
            self._json(200, {"version": "0.32.0"})
        elif "sick" in mind.mischief:
            self._send(500, b"", None)
        elif mind.family == "llamacpp":
            self._json(200, {"status": "ok"})
        else:
            self._send(200, b"", None)

    def _unauthorized(self) -> None:
        refusal = requests.unauthorized(self.server.mind)
        if "echo-key" in self.server.mind.mischief:
            refusal = {"error": f"not {self.server.key}: {self.headers.get('Authorization')}"}
        self._bare(401, refusal)

    def _chat(self, raw: bytes) -> None:
        mind = self.server.mind
        if "error-500" in mind.mischief:
            self._refuse(Problem(500, "EngineCore encountered an issue.", "InternalServerError"))
            return
        if "redirect" in mind.mischief:
            self._json(307, {}, {"Location": "/elsewhere"})
            return
        body = requests.read(raw, self.headers.get("Content-Type", ""), mind)
        found = body
        if not isinstance(body, Problem):
            with self.server.lock:
                turn = self.server.counts.requests
            found = self.server.think(body, mind, turn)
            self.server.heard(body, found)
        if isinstance(found, Problem):
            self._refuse(found)
            return
        with self.server.lock:
            number = self.server.counts.add(found)
            if "mix-up" in mind.mischief and mischief.is_word(found.content):
                words, self.server.word = found.content, self.server.word
                found = replace(found, content=self.server.word or words)
                self.server.word = words
        now = int(time.time())
        if body.get("stream") is True:
            options = body.get("stream_options")
            said = options if isinstance(options, dict) else {}
            self._stream(self._mended(events(found, mind, number=number, now=now, options=said)))
        else:
            self._json(200, wire.completion(found, mind, number=number, now=now))

    def _mended(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """The events as they are sent, whole and at once or not."""
        ways = self.server.mind.mischief
        if "hold-stream" in ways:
            held = list(pieces)
            time.sleep(_HELD)
            return held
        return list(pieces)[:-2] if "cut-stream" in ways else pieces

    def _body(self) -> bytes | None:
        """The request's body; None when it was refused, and the connection ends."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            self.send_error(400)
            return None
        if int(length) > _LARGEST:
            self._too_large(int(length))
            return None
        raw = self.rfile.read(int(length))
        self.close_connection = self.close_connection or len(raw) < int(length)
        return raw

    def _chunks(self) -> bytes | None:
        parts, size = [], 0
        while True:
            line = self.rfile.readline(64).split(b";")[0].strip()
            try:
                count = int(line, 16)
            except ValueError:
                self.send_error(400)
                return None
            size += count
            if size > _LARGEST or count < 0:
                self._too_large(0)
                return None
            parts.append(self.rfile.read(count))
            self.rfile.readline(64)
            if count == 0:
                return b"".join(parts)

    def _too_large(self, length: int) -> None:
        """Read what still comes, up to four times the limit, so that the refusal is heard."""
        for _ in range(min(length, 4 * _LARGEST) // _PIECE):
            if not self.rfile.read(_PIECE):
                break
        self.close_connection = True
        self._bare(413, {"detail": "Content Too Large"})

    def _refuse(self, problem: Problem) -> None:
        if problem.kind == requests.BARE:
            self._bare(problem.status, {"detail": problem.message})
        else:
            self._json(problem.status, wire.problem_body(problem, self.server.mind))

    def _bare(self, status: int, value: Any, *, allow: str | None = None) -> None:
        self._json(status, value, {} if allow is None else {"Allow": allow})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        llama = self.server.mind.family == "llamacpp"
        kind = "application/json; charset=utf-8" if llama else "application/json"
        self._send(status, text.encode("utf-8", "replace"), kind, headers or {})

    def _send(
        self, status: int, body: bytes, kind: str | None, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self._common()
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _common(self) -> None:
        if self.server.mind.family == "vllm":
            self.send_header("Vary", "Origin")

    def _stream(self, pieces: Iterable[bytes]) -> None:
        llama = self.server.mind.family == "llamacpp"
        self.send_response(200)
        kind = "text/event-stream" if llama else "text/event-stream; charset=utf-8"
        self.send_header("Content-Type", kind)
        self._common()
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
