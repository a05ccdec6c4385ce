"""The stand-in's HTTP server: standard library, a thread a connection, HTTP/1.1."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kimideploy.rehearsal import wire
from kimideploy.rehearsal.brain import Mind, Problem, answer

_LARGEST = 32 << 20
_CHAT = "/v1/chat/completions"


class Server(ThreadingHTTPServer):
    """Serves one Mind; counts what /metrics tells. `ready` false: every request waits for it."""

    daemon_threads = True
    # Why: a port in use must be refused, as the engines refuse it.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], mind: Mind, *, key: str | None = None) -> None:
        super().__init__(address, _Handler)
        self.mind, self.key = mind, key
        self.requests = self.generated = 0
        self._lock = threading.Lock()

    def count(self, tokens: int) -> int:
        """Return the number of this request."""
        with self._lock:
            self.requests += 1
            self.generated += tokens
            return self.requests

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def do_GET(self) -> None:
        mind, path = self.server.mind, self.path.partition("?")[0]
        if path in ("/health", "/health_generate"):
            body = b"" if mind.engine != "llamacpp" else b'{"status":"ok"}'
            self._send(200, body, None if not body else "application/json")
        elif path == "/v1/models":
            if self._allowed():
                self._json(200, wire.models(mind, now=int(time.time())))
        elif path == "/version" and mind.engine == "vllm":
            self._json(200, {"version": "0.32.0"})
        elif path == "/metrics":
            text = wire.metrics(
                mind, requests=self.server.requests, generated=self.server.generated
            )
            self._send(200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")
        elif path == _CHAT:
            self._json(405, {"detail": "Method Not Allowed"})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        raw = self._body()
        if raw is None:
            return
        if self.path.partition("?")[0] != _CHAT:
            self._json(404, {"detail": "Not Found"})
        elif self._allowed():
            self._chat(raw)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write the access line uvicorn writes."""
        del size
        host, port = self.client_address[:2]
        status = code.value if isinstance(code, HTTPStatus) else code
        sys.stdout.write(f'INFO:     {host}:{port} - "{self.requestline}" {status}\n')
        sys.stdout.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet about everything else."""

    def _chat(self, raw: bytes) -> None:
        mind = self.server.mind
        kind = self.headers.get("Content-Type", "")
        if "json" not in kind:
            problem = Problem(
                400,
                "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
                "Bad Request",
            )
            self._json(400, wire.problem_body(problem, mind))
            return
        try:
            body = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self._json(400, {"detail": "There was an error parsing the body"})
            return
        except (ValueError, RecursionError):
            message = "1 validation error:\n  {'type': 'json_invalid', 'msg': 'JSON decode error'}"
            problem = Problem(400, message, "Bad Request", "body")
            self._json(400, wire.problem_body(problem, mind))
            return
        found = answer(body, mind)
        if isinstance(found, Problem):
            self._json(found.status, wire.problem_body(found, mind))
            return
        number, now = self.server.count(found.completion_tokens), int(time.time())
        if body.get("stream") is True:
            options = body.get("stream_options")
            with_usage = isinstance(options, dict) and options.get("include_usage") is True
            self._stream(wire.events(found, mind, number=number, now=now, with_usage=with_usage))
        else:
            self._json(200, wire.completion(found, mind, number=number, now=now))

    def _allowed(self) -> bool:
        if self.server.key is None:
            return True
        if self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > _LARGEST:
            self.close_connection = True
            self._json(413 if length.isdigit() else 411, {"detail": "Content Too Large"})
            return None
        return self.rfile.read(int(length))

    def _json(self, status: int, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        self._send(status, text.encode("utf-8", "surrogatepass"), "application/json")

    def _send(self, status: int, body: bytes, kind: str | None) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def version_string(self) -> str:
        """Name the server as the engines' own does."""
        return "uvicorn"
