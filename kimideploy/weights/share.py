"""Weights from one node to another: proved folders behind the one question a pull asks of a hub.

The bytes of a file, or a range of them, for whoever has the token. What is sent proves itself: who
receives it hashes it against a manifest that came another way.
"""

from __future__ import annotations

import hmac
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from kimideploy.errors import WeightsError
from kimideploy.weights.manifest import read_manifest

#: org/name, commit, path: the address of a file on a hub
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)")
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{1,19})?")
#: connections at once, and the seconds that one may be silent
_MOST, _SILENT = 256, 60.0

Files = Mapping[tuple[str, str, str], Path]


def files_of(folders: Sequence[Path]) -> Files:
    """Return (repository, commit, path) → file for all that the manifests of *folders* name.

    Raises WeightsError for a folder that no pull has published.
    """
    found: dict[tuple[str, str, str], Path] = {}
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest is None or folder.name != manifest.revision:
            raise WeightsError(f"{folder} holds no weights that a pull has proved")
        for item in manifest.items:
            found[manifest.repo, manifest.revision, item.path] = folder / item.path
    return found


class Share(ThreadingHTTPServer):
    """A server of *files* to whoever sends *token*, until nobody has asked for *idle* seconds."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], files: Files, token: str, *, idle: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.files, self.token = files, token
        self._idle, self._asked = idle, time.monotonic()
        self._room = threading.BoundedSemaphore(_MOST)
        self._lock = threading.Lock()
        self._busy = 0

    def server_bind(self) -> None:
        """Bind, and ask no resolver for this host's name, which may take a minute to answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close where too many are at it."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke: its other end tries again."""

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Take in that somebody with the token is there, until all was sent."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._asked = time.monotonic()

    def service_actions(self) -> None:
        """End when nobody asks any more; called twice a second."""
        if self._busy == 0 and time.monotonic() - self._asked > self._idle:
            self._asked = time.monotonic()
            # Why a thread: it waits for the loop that calls this.
            threading.Thread(target=self.shutdown, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENT
    server: Share

    def do_GET(self) -> None:
        """Send a file, or the range of it that was asked for."""
        said = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(said, f"Bearer {self.server.token}".encode()):
            self._refuse(HTTPStatus.UNAUTHORIZED)
            self.close_connection = True
            return
        with self.server.asked():
            self._answer()

    def _answer(self) -> None:
        found = _FILE.fullmatch(unquote(urlsplit(self.path).path))
        path = self.server.files.get((found[1], found[2], found[3])) if found else None
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            file = path.open("rb")
        except OSError:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        with file:
            self._send(file, path.stat().st_size)

    def _send(self, file: Any, size: int) -> None:
        start, end = 0, size
        asked = self.headers.get("Range")
        if asked is not None:
            span = _RANGE.fullmatch(asked.strip())
            start = int(span[1]) if span else size
            end = min(size, int(span[2]) + 1) if span and span[2] else size
            if start >= end:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"bytes */{size}")
                return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked is not None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if end > start:
            self.connection.sendfile(file, start, end - start)

    def _refuse(self, status: HTTPStatus, span: str | None = None) -> None:
        self.send_response(status)
        if span is not None:
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
        """Say nothing: thousands of ranges are no news."""
