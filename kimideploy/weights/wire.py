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
from functools import cached_property
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from kimideploy.errors import RequestError, WeightsError
from kimideploy.weights.hub import Repository, refusal
from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import TRANSIENT, Pause, Trouble, asked

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: answers that say that a signed address has run out
_EXPIRED = frozenset({400, 401, 403, 404, 410})
_MOST_HOPS = 5
_PARTIAL, _WHOLE = 206, 200
_SKIP = 1 << 20
#: what a kept connection says when the server had closed it in the meantime
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


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
            response, connection = self._ask(url, item, start, end)
            if response.status in _REDIRECTS:
                target = response.headers.get("Location")
                self._drain(response, connection)
                if not target:
                    raise Trouble("a redirect to nowhere")
                url = _followed(url, target, item.path)
                continue
            if response.status in (_PARTIAL, _WHOLE):
                with self._lock:
                    self._addresses[item.path] = url
                return self._body(response, connection, item, start, end)
            self._failed(response, connection, item, url)
        raise WeightsError(f"{item.path}: more than {_MOST_HOPS} redirects")

    def abort(self) -> None:
        """Cut every connection, so that whoever reads from one comes back."""
        with self._lock:
            for connection in self._every:
                with suppress(OSError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._every:
                with suppress(OSError):
                    connection.close()
            self._every.clear()

    def _failed(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        item: Item,
        url: str,
    ) -> None:
        headers = dict(response.headers.items())
        self._drain(response, connection)
        with self._lock:
            self._addresses.pop(item.path, None)
        wait = asked(headers)
        if response.status in TRANSIENT:
            if wait is not None:
                self._pause.until(wait)
            raise Trouble(f"the server answered {response.status}", wait)
        if _origin(urlsplit(url)) != self._home and response.status in _EXPIRED:
            # Why again: an address the hub signs holds for a while, the next one is new.
            raise Trouble(f"the address that the hub named was refused ({response.status})")
        raise refusal(self._repository.repo, item.path, response.status, headers)

    def _body(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        item: Item,
        start: int,
        end: int,
    ) -> HttpBody:
        wrong, skip = None, 0
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
            connection.close()
            raise Trouble(wrong)
        return HttpBody(response, connection, skip=skip, left=end - start)

    def _ask(
        self, url: str, item: Item, start: int, end: int
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
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
                return connection.getresponse(), connection
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
        proxy = urlsplit(name if "://" in name else f"http://{name}")
        if proxy.scheme != "http" or not proxy.hostname:
            raise RequestError(
                f"a proxy of the kind {proxy.scheme} is not supported",
                hint="{http,https}_proxy=http://HOST:PORT, or no_proxy for the hub's host",
            )
        return proxy

    @cached_property
    def _proxies(self) -> Mapping[str, str]:
        return getproxies()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @staticmethod
    def _drain(response: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> None:
        """Read what is left of a small answer, so that its connection can be used again."""
        try:
            response.read(1 << 16)
            if not response.isclosed():
                connection.close()
        except (OSError, http.client.HTTPException):
            connection.close()


class HttpBody:
    """The bytes of one answer."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        *,
        skip: int,
        left: int,
    ) -> None:
        self._response, self._connection = response, connection
        self._skip, self._left = skip, left

    def readinto(self, view: memoryview) -> int:
        """Fill *view* as far as bytes come; 0 at the end of what was asked for."""
        try:
            while self._skip:
                # Why read: who ignores the range sends the file from its start.
                got = len(self._response.read(min(self._skip, _SKIP)))
                if not got:
                    return 0
                self._skip -= got
                return self.readinto(view)
            got = self._response.readinto(view[: self._left])
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise Trouble(_plain(error, self._connection.host)) from error
        self._left -= got
        return got

    def abort(self) -> None:
        """Cut the connection."""
        sock = self._connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Keep the connection for the next request, or end it where bytes are left in it."""
        with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            if not self._left and not self._response.isclosed():
                self._response.read(0)
        if self._left or not self._response.isclosed():
            self._connection.close()


def _followed(url: str, target: str, path: str) -> str:
    """Return where a redirect leads; WeightsError for what is no address of HTTP."""
    try:
        found = urljoin(url, target)
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
