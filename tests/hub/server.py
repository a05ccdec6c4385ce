"""A hub that speaks what huggingface_hub 2 asks, a CDN on another origin, faults and a log.

It can lie and break in every way that was seen: see Fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 1 << 16
Kind = Literal[
    "mute", "status", "redirect", "cut", "stall", "flip", "length", "whole", "slow", "span"
]


@dataclass
class Fault:
    """What goes wrong, *times* times, with requests whose "METHOD path" has *match*.

    mute: no answer at all. status: an answer of that status with *headers*. redirect: *headers*
    say where to. cut: the connection ends *at* bytes into the body; stall: it stays silent there;
    flip: one bit is wrong there. length: the answer says one byte too few. whole: the range is
    ignored. slow: nothing but that. span: another Content-Range than was asked for.
    *rate* are bytes a second, *close*: the answer says that its connection ends with it.
    """

    match: str
    kind: Kind
    times: int = 1
    at: int = 0
    status: int = 500
    rate: float | None = None
    close: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A file of a commit: its bytes in *path*, or none at all where only its listing counts."""

    size: int
    oid: str
    sha256: str | None = None
    path: Path | None = None
    xet: str | None = None

    def listed(self, name: str) -> dict[str, Any]:
        """Return the entry of a tree."""
        found: dict[str, Any] = {
            "type": "file",
            "path": name,
            "size": self.size,
            "oid": self.oid,
        }
        if self.sha256 is not None:
            found["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 135}
        if self.xet is not None:
            found["xetHash"] = self.xet
        return found


@dataclass(frozen=True)
class Asked:
    """A request that was answered: `sent` counts bytes of file contents."""

    method: str
    path: str
    status: int
    range: str | None
    sent: int
    authorized: bool
    origin: Literal["hub", "cdn"]
    encoding: str | None = None
    #: when it had been answered, time.monotonic()
    at: float = 0.0


@dataclass
class Hub:
    """Repositories by name, commits by id; `main` is the commit that was added last."""

    url: str = ""
    cdn: str = ""
    page: int = 1000
    #: send large files from the other origin, by addresses that say until when they hold
    redirects: bool = True
    token: str | None = None
    cas: str = ""
    log: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    repos: dict[str, dict[str, dict[str, Entry]]] = field(default_factory=dict)
    #: signed addresses of an older epoch have run out
    epoch: int = 0
    #: connections that were opened, by either origin
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repo: str, folder: Path, *, xet: dict[str, str] | None = None) -> str:
        """Publish *folder* as the newest commit of *repo*; returns the commit."""
        files = {
            path.relative_to(folder).as_posix(): _entry(path, (xet or {}).get(path.name))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.publish(repo, files)

    def publish(self, repo: str, files: dict[str, Entry]) -> str:
        """Publish *files* as the newest commit of *repo*; returns the commit."""
        text = json.dumps([entry.listed(name) for name, entry in files.items()])
        commit = hashlib.sha1(f"{repo}{text}{len(self.repos.get(repo, {}))}".encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = files
        return commit

    def sent(self, match: str = "") -> int:
        """Return the bytes of contents that were sent."""
        return sum(one.sent for one in self.log if re.search(match, one.path))

    def fault(self, what: str) -> Fault | None:
        """Return the fault that befalls the request *what*, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, what):
                    fault.times -= 1
                    return fault
        return None


def _entry(path: Path, xet: str | None) -> Entry:
    size = path.stat().st_size
    if size < LFS_FROM and path.suffix != ".safetensors":
        text = path.read_bytes()
        return Entry(size, hashlib.sha1(b"blob %d\0" % size + text).hexdigest(), None, path)
    with path.open("rb") as file:
        hasher = hashlib.sha256()
        while data := file.read(1 << 20):
            hasher.update(data)
        digest = hasher.hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
    oid = hashlib.sha1(f"blob {len(pointer)}\0{pointer}".encode()).hexdigest()
    return Entry(size, oid, digest, path, xet)


@contextmanager
def running(tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[Hub]:
    """Serve a hub and its CDN on free ports of *address*, encrypted where *tls* is given."""
    hub = Hub()
    servers = []
    for origin in ("hub", "cdn"):
        server = _Server((address, 0), partial(_Handler, hub, origin))
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    hub.url, hub.cdn = (
        f"{'https' if tls else 'http'}://{address}:{server.server_port}" for server in servers
    )
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves in the middle is part of the tests."""

    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, hub: Hub, origin: Literal["hub", "cdn"], *rest: Any) -> None:
        self.hub, self.origin = hub, origin
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        """Count the connection."""
        with self.hub.lock:
            self.hub.connections += 1
        super().setup()

    def handle(self) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            super().handle()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Answer what mirrors ask: some paths of a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", unquote(self.path))
        commit = self._commit(found[1], found[2]) if found is not None else None
        if found is None:
            return self._answer(404, b"{}")
        if commit is None:
            return None
        json_ = body.startswith(b"{")
        paths = json.loads(body)["paths"] if json_ else parse_qs(body.decode())["paths"]
        files = self.hub.repos[found[1]][commit]
        wanted = [paths] if isinstance(paths, str) else paths
        listed = [files[path].listed(path) for path in wanted if path in files]
        return self._answer(200, json.dumps(listed).encode())

    def do_GET(self) -> None:  # noqa: PLR0911  one route each
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        fault = self.hub.fault(f"{self.command} {self.path}")
        if fault is not None and fault.kind == "mute":
            return self._silence()
        if fault is not None and fault.kind in ("status", "redirect"):
            return self._answer(fault.status, b'{"error":"injected"}', fault.headers)
        token = self.headers.get("Authorization")
        if self.origin == "cdn":
            return self._cdn(path, query, fault)
        if path.startswith("/signed/"):
            return self._cdn(path.removeprefix("/signed"), query, fault)
        if self.hub.token is not None and token != f"Bearer {self.hub.token}":
            code = {"X-Error-Code": "GatedRepo" if token is None else "RepoNotFound"}
            return self._answer(403 if token is None else 401, b'{"error":"gated"}', code)
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path)
        if about is not None:
            return self._about(about[1], about[2])
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path)
        if tree is not None:
            return self._tree(tree[1], tree[2], query)
        if re.fullmatch(r"/api/models/([^/]+/[^/]+)/xet-read-token/(.+)", path):
            exp = int(time.time()) + 3600
            body = {"accessToken": "t", "exp": exp, "casUrl": self.hub.cas}
            names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
            head = dict(zip(names, (self.hub.cas, "t", str(exp)), strict=True))
            return self._answer(200, json.dumps(body).encode(), head)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file is not None:
            return self._resolve(file[1], file[2], file[3], fault)
        return self._answer(404, b"{}")

    # --- metadata --------------------------------------------------------------------------

    def _commit(self, repo: str, revision: str | None) -> str | None:
        """Return the commit that is meant, or answer why there is none."""
        commits = self.hub.repos.get(repo)
        if commits is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if revision in (None, "main"):
            return list(commits)[-1]
        if revision not in commits:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return revision

    def _about(self, repo: str, revision: str | None) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        names = [{"rfilename": name} for name in self.hub.repos[repo][commit]]
        body = {"id": repo, "sha": commit, "siblings": names, "private": False, "tags": []}
        self._answer(200, json.dumps(body).encode())

    def _tree(self, repo: str, revision: str, query: dict[str, list[str]]) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        every = [entry.listed(name) for name, entry in self.hub.repos[repo][commit].items()]
        at = int(query.get("cursor", ["0"])[0])
        head = {}
        if at + self.hub.page < len(every):
            following = f"{self.hub.url}/api/models/{repo}/tree/{commit}"
            cursor = f"recursive=true&cursor={at + self.hub.page}"
            head["Link"] = f'<{following}?{cursor}>; rel="next"'
        self._answer(200, json.dumps(every[at : at + self.hub.page]).encode(), head)

    # --- files -----------------------------------------------------------------------------

    def _resolve(self, repo: str, revision: str, name: str, fault: Fault | None) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        entry = self.hub.repos[repo][commit].get(name)
        if entry is None or entry.path is None:
            code = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._answer(404, b"{}", code)
        head = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        head["ETag"] = f'"{entry.sha256 or entry.oid}"'
        if entry.sha256 is not None:
            head |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
            if self.hub.redirects and fault is None:
                target = f"{self.hub.cdn}/{repo}/{commit}/{name}?until={self.hub.epoch}"
                return self._answer(302, b"", head | {"Location": target})
        return self._file(entry, head, fault)

    def _cdn(self, path: str, query: dict[str, list[str]], fault: Fault | None) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path)
        if found is None or query.get("until") != [str(self.hub.epoch)]:
            return self._answer(403, b"expired")
        entry = self.hub.repos[found[1]][found[2]][found[3]]
        return self._file(entry, {"Accept-Ranges": "bytes"}, fault)

    def _file(self, entry: Entry, head: dict[str, str], fault: Fault | None) -> None:
        asked = self.headers.get("Range")
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        start, end, status = 0, entry.size, 200
        if span is not None and not (fault is not None and fault.kind == "whole"):
            start = int(span[1])
            end = min(int(span[2]) + 1 if span[2] else entry.size, entry.size)
            status = 206
            told = start + (1 if fault is not None and fault.kind == "span" else 0)
            head["Content-Range"] = f"bytes {told}-{end - 1}/{entry.size}"
        length = end - start - (1 if fault is not None and fault.kind == "length" else 0)
        if fault is not None and fault.close:
            head["Connection"] = "close"
        self.send_response(status)
        for name, value in (head | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        try:
            if self.command == "GET" and entry.path is not None:
                for sent in self._body(entry.path, start, start + length, fault):  # noqa: B007
                    pass
        finally:
            self._logged(status, sent)

    def _body(self, path: Path, start: int, end: int, fault: Fault | None) -> Iterator[int]:
        """Send the bytes; yields how many were sent so far."""
        with path.open("rb") as file:
            if fault is None and not isinstance(self.connection, ssl.SSLSocket):
                yield from self._plainly(file.fileno(), start, end)
                return
            at, most = start, 1 << 16
            if fault is not None and fault.rate is not None:
                most = min(most, max(int(fault.rate / 10), 1))
            breaks = start + fault.at if fault is not None else -1
            file.seek(at)
            while at < end:
                data = bytearray(file.read(min(end - at, most)))
                if fault is not None and at <= breaks < at + len(data):
                    if fault.kind == "flip":
                        data[breaks - at] ^= 1
                    if fault.kind in ("cut", "stall"):
                        self._write(data[: breaks - at])
                        yield breaks - start
                        self._break(silent=fault.kind == "stall")
                        return
                if not self._write(data):
                    return
                at += len(data)
                yield at - start
                if fault is not None and fault.rate is not None:
                    time.sleep(len(data) / fault.rate)

    def _plainly(self, descriptor: int, start: int, end: int) -> Iterator[int]:
        at = start
        while at < end:
            try:
                at += os.sendfile(self.connection.fileno(), descriptor, at, min(end - at, 1 << 20))
            except OSError:
                self.close_connection = True
                return
            yield at - start

    def _break(self, *, silent: bool) -> None:
        if silent:
            self._silence()
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _silence(self) -> None:
        """Say nothing until the other side has gone."""
        self.connection.settimeout(60)
        with suppress(OSError):
            while self.connection.recv(1 << 16):
                pass

    def _write(self, data: bytes | bytearray) -> bool:
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True
            return False
        return True

    def _answer(self, status: int, body: bytes, head: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(head or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)
        self._logged(status, 0)

    def _logged(self, status: int, sent: int) -> None:
        self.hub.log.append(
            Asked(
                method=self.command,
                path=self.path,
                status=status,
                range=self.headers.get("Range"),
                sent=sent,
                authorized=self.headers.get("Authorization") is not None,
                origin=self.origin,
                encoding=self.headers.get("Accept-Encoding"),
                at=time.monotonic(),
            )
        )
