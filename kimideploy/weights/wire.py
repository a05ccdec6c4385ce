"""Ranges over HTTP/1.1: connections that are kept, redirects that do not carry the token along.

The standard library's client, for a measured reason: it fills a buffer of ours, where others hand
out a new object a piece; hashing from a buffer that stays in the cache takes half the time.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from kimideploy.errors import RequestError, WeightsError
from kimideploy.weights.hub import Repository, refusal
from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Pause, Trouble, asked, transient

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: answers that say that a signed address has run out
_EXPIRED = frozenset({400, 401, 403, 404, 410})
_MOST_HOPS = 5
_PARTIAL, _WHOLE = 206, 200
#: bytes of an answer that says no, read so that its connection can be kept
_SKIPPED = 1 << 16
#: what a kept connection says when the server had closed it in the meantime
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
#: what stands in an address as it is (RFC 3986), and % for what is quoted already
_ADDRESS = "%/:?#[]@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer whose head has come, and what it comes over."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    #: Why beside: the connection lets go of it where the server ends the connection
    sock: socket.socket | None

    def close(self) -> None:
        """Keep the connection for the next request if all was read, else end it."""
        if not self.response.isclosed():
            with suppress(OSError):
                self.response.close()
            self.connection.close()


class Wire:
    """A repository's files by HTTP. Every thread has connections of its own."""

    name = "http"

    def __init__(self, repository: Repository, pause: Pause, *, timeout: float) -> None:
        # Why twice: a silent body is the watch's to end; this is for one that never begins.
        self._repository, self._pause, self._timeout = repository, pause, 2 * timeout
        self._home = _origin(urlsplit(repository.endpoint))
        self._own = threading.local()
        self._every: list[http.client.HTTPConnection] = []
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()
        #: whether the server sends parts of files, as far as it has shown
        self.ranges = True

    def open(self, item: Item, start: int, end: int) -> HttpBody:
        """Ask for bytes *start* up to *end* of *item*, from where the hub says they lie."""
        with self._lock:
            cached = self._addresses.get(item.path)
        url = cached or self._repository.url(item.path)
        for _ in range(_MOST_HOPS):
            answer = self._ask(url, item, start, end)
            status, headers = answer.response.status, answer.response.headers
            if status in _REDIRECTS:
                target = headers.get("Location")
                _drain(answer)
                if not target:
                    raise Trouble("a redirect to nowhere")
                url = _followed(url, target, item.path)
                continue
            if status in (_PARTIAL, _WHOLE):
                with self._lock:
                    self._addresses[item.path] = url
                return self._body(answer, item, start, end)
            _drain(answer)
            self._refused(status, dict(headers.items()), item, url)
        raise WeightsError(f"{item.path}: more than {_MOST_HOPS} redirects")

    def forget(self, item: Item) -> None:
        """Ask the hub anew where *item* lies: what it said may have run out, or lead nowhere."""
        with self._lock:
            self._addresses.pop(item.path, None)

    def abort(self) -> None:
        """Cut every connection, so that whoever reads from one comes back."""
        with self._lock:
            for connection in self._every:
                _cut(connection.sock)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._every:
                with suppress(OSError):
                    connection.close()
            self._every.clear()

    def _refused(self, status: int, headers: Mapping[str, str], item: Item, url: str) -> None:
        """Raise what an answer means that brings no bytes."""
        wait = asked(headers)
        if transient(status):
            if wait is not None:
                self._pause.until(wait)
            raise Trouble(f"the server answered {status}", wait)
        if url != self._repository.url(item.path) and status in _EXPIRED:
            # Why again: an address the hub signs holds for a while, the next one is new.
            raise Trouble(f"the address that the hub named was refused ({status})")
        raise refusal(self._repository.repo, item.path, status, headers)

    def _body(self, answer: _Answer, item: Item, start: int, end: int) -> HttpBody:
        response, wrong, skip = answer.response, None, 0
        if (response.headers.get("Content-Encoding") or "identity") != "identity":
            wrong = "the server packed the bytes though asked not to"
        elif response.status == _PARTIAL:
            span = (response.headers.get("Content-Range") or "").strip()
            if span != f"bytes {start}-{end - 1}/{item.size}":
                wrong = f"the server sent {span[:60]!r} of {start}-{end - 1}"
        else:
            self.ranges = self.ranges and not start and end == item.size
            skip = start
            length = response.headers.get("Content-Length")
            if length is not None and length != str(item.size):
                wrong = f"the server has {length[:20]} bytes of it, not {item.size:,}"
        if wrong is not None:
            answer.close()
            raise Trouble(wrong)
        return HttpBody(answer, skip=skip, left=end - start)

    def _ask(self, url: str, item: Item, start: int, end: int) -> _Answer:
        self._pause.heed()
        parts = urlsplit(url)
        headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
        if item.size and (start or end < item.size):
            headers["Range"] = f"bytes={start}-{end - 1}"
        # Why here and not once: only the hub itself may see the token, no address it names.
        if _origin(parts) == self._home:
            headers |= self._repository.headers
        for again in (True, False):
            connection, kept = self._connection(parts)
            try:
                target, extra = self._target(parts)
                connection.request("GET", target, headers=headers | extra)
                sock = connection.sock
                return _Answer(connection.getresponse(), connection, sock)
            except ssl.SSLCertVerificationError as error:
                raise WeightsError(
                    f"the certificate of {parts.hostname} is not trusted: {error.verify_message}",
                    hint="SSL_CERT_FILE names a file of certificates to trust",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and again and isinstance(error, _STALE):
                    continue
                raise Trouble(_plain(error, parts.hostname or "")) from error
        raise AssertionError

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection to an origin, and whether it has been used before."""
        own: dict[tuple[str, str, int], http.client.HTTPConnection]
        own = self._own.__dict__.setdefault("connections", {})
        key = _origin(parts)
        if key in own:
            return own[key], own[key].sock is not None
        proxy = self._proxy(parts)
        host, port = (proxy.hostname or "", proxy.port) if proxy else (key[1], key[2])
        if key[0] == "https":
            secure = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=self._context
            )
            if proxy is not None:
                secure.set_tunnel(key[1], key[2], headers=_authorization(proxy))
            connection: http.client.HTTPConnection = secure
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        own[key] = connection
        with self._lock:
            self._every.append(connection)
        return connection, False

    def _target(self, parts: SplitResult) -> tuple[str, dict[str, str]]:
        """Return what stands in the request's first line, and what a proxy wants to hear."""
        proxy = self._proxy(parts)
        if proxy is not None and parts.scheme == "http":
            return urlunsplit(parts._replace(fragment="")), _authorization(proxy)
        return urlunsplit(("", "", parts.path or "/", parts.query, "")), {}

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        host = parts.hostname or ""
        name = self._proxies.get(parts.scheme) or self._proxies.get("all")
        if not name or proxy_bypass(host):
            return None
        hint = "{http,https}_proxy=http://HOST:PORT, or no_proxy for the hub's host"
        try:
            proxy = urlsplit(name if "://" in name else f"http://{name}")
            known = bool(proxy.hostname) and proxy.port != 0
        except ValueError as error:
            raise RequestError("the proxy of the environment is no address", hint=hint) from error
        if proxy.scheme != "http" or not known:
            raise RequestError(f"a proxy of the kind {proxy.scheme} is not supported", hint=hint)
        return proxy

    @cached_property
    def _proxies(self) -> Mapping[str, str]:
        return getproxies()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()


class HttpBody:
    """The bytes of one answer, from where they were asked for."""

    def __init__(self, answer: _Answer, *, skip: int, left: int) -> None:
        """Begin *skip* bytes into the answer: who ignores a range sends the file from its start."""
        self._answer, self._skip, self._left = answer, skip, left
        self.came = 0

    def readinto(self, view: memoryview) -> int:
        """Fill *view* as far as bytes come; 0 at the end of what was asked for."""
        while self._skip:
            got = self._some(view[: self._skip])
            if not got:
                return 0
            self._skip -= got
        got = self._some(view[: self._left])
        self._left -= got
        return got

    def _some(self, view: memoryview) -> int:
        answer = self._answer
        try:
            got = answer.response.readinto(view)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise Trouble(_plain(error, answer.connection.host)) from error
        self.came += got
        return got

    def abort(self) -> None:
        """Cut the connection."""
        _cut(self._answer.sock)

    def close(self) -> None:
        """Keep the connection for the next request, or end it where bytes are left in it."""
        self._answer.close()


def _drain(answer: _Answer) -> None:
    """Read what is left of a small answer, so that its connection can be used again."""
    with suppress(OSError, http.client.HTTPException):
        answer.response.read(_SKIPPED)
    answer.close()


def _cut(sock: socket.socket | None) -> None:
    if sock is not None:
        with suppress(OSError):
            # Why not its own: an encrypted socket forgets its keys first, and whoever reads from it
            # would be handed what came encrypted.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _followed(url: str, target: str, path: str) -> str:
    """Return where a redirect leads; WeightsError for what is no address of HTTP."""
    try:
        # Why quoted: header lines are bytes, and some servers write names as they are.
        found = urljoin(url, quote(target.encode("latin-1", "replace"), safe=_ADDRESS))
        parts = urlsplit(found)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return found
    except ValueError:
        pass
    raise WeightsError(f"{path}: the hub redirects to {target[:80]!r}")


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    try:
        port = parts.port
    except ValueError:
        port = None
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        port or (443 if parts.scheme == "https" else 80),
    )


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words).decode()}"}


def _plain(error: Exception, host: str) -> str:
    match error:
        case socket.gaierror():
            return f"the name {host} can't be resolved"
        case TimeoutError():
            return f"{host} did not answer in time"
        case ConnectionRefusedError():
            return f"{host} refuses connections"
        case OSError(strerror=str(text)):
            return f"the connection to {host} broke: {text}"
        case _:
            return f"the connection to {host} broke: {type(error).__name__}"
