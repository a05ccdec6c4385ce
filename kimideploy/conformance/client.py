"""Requests to an endpoint, over the standard library: whole answers and server-sent events.

An endpoint may be anything: every request has a deadline that nothing it does can extend, an answer
has a largest size, and a redirect is an answer like any other, never followed.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kimideploy.errors import RequestError

#: bytes; no answer to one of our requests is nearly as long
LARGEST = 32 << 20
_PIECE = 64 << 10
_LATE = "no answer in time"
#: events of a stream; an answer of 4096 tokens has at most as many
_MOST_EVENTS = 50_000
#: stands where a key was; the key itself is never kept or shown
MARK = "[the key]"
_VERSION = re.compile(r"/v\d+(/|$)")


class Unreachable(Exception):  # noqa: N818
    """Nobody answered, or the answer broke off; the text says how."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came; names of headers are in small letters."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint is, without what follows the `/v1` of its paths."""

    secure: bool
    host: str
    port: int
    prefix: str
    #: what stands for the `/v1` of a path, where an address has a version of its own in it
    api: str = "/v1"

    def path(self, path: str) -> str:
        """Return *path*, which may begin with /v1, as it is at this place."""
        if path.startswith("/v1/"):
            return f"{self.prefix}{self.api}{path.removeprefix('/v1')}"
        return self.prefix + path

    @property
    def url(self) -> str:
        """The address as it is shown and stored."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.secure else 80
        port = "" if self.port == usual else f":{self.port}"
        return f"http{'s' if self.secure else ''}://{host}{port}{self.prefix}"


def place(url: str) -> Place:
    """Return where *url* is; its `/v1` may be there or not. Raises RequestError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(
            f"{url!r} is no http or https address", hint="e.g. http://127.0.0.1:8000"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise RequestError(
            "an endpoint is scheme, host, port and path alone", hint="a key goes in --api-key-file"
        )
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/")
    # Why: some have /v1/openai or /api/v3 where others have /v1, and no /v1 below it.
    own = _VERSION.search(path) is not None and not path.endswith("/v1")
    prefix = path if own else path.removesuffix("/v1")
    if any(not ("!" <= sign <= "~") for sign in prefix + parts.hostname):
        raise RequestError(f"{url!r} holds signs that no URL has")
    api = "" if own else "/v1"
    return Place(secure, parts.hostname, port or (443 if secure else 80), prefix, api)


class Client:
    """An endpoint at `url`, e.g. http://127.0.0.1:8000; `key` is sent as a bearer token."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self.place = place(url)
        self.url = self.place.url
        self.key = key

    def keyed(self, key: str | None) -> Client:
        """Return the same endpoint, asked with another key, or with none."""
        return Client(self.url, key=key)

    def masked(self, text: str) -> str:
        """Return *text* without the key, however JSON may have written it."""
        if not self.key:
            return text
        for spelt in (self.key, self.key.replace("/", "\\/")):
            text = text.replace(spelt, MARK)
        return text

    def get(self, path: str, *, timeout: float) -> Reply:
        """Return the answer to a GET within *timeout* seconds; raises Unreachable."""
        return self._whole("GET", path, None, timeout)

    def post(self, path: str, body: Any, *, timeout: float) -> Reply:
        """Return the answer to *body* posted as JSON; raises Unreachable."""
        return self._whole("POST", path, body, timeout)

    def stream(
        self, path: str, body: Any, *, timeout: float, deadline: float | None = None
    ) -> Iterator[Reply | Any]:
        """Yield each event of the answer to *body*; one Reply instead if it is no stream.

        `timeout` is the longest silence and `deadline` the longest stream, in seconds; None is no
        bound. Raises Unreachable, also where the stream ends without its [DONE].
        """
        with self._sent("POST", path, body, timeout, deadline) as response:
            if not _streams(response):
                yield Reply(response.status, _read(response), _headers(response))
                return
            size = count = 0
            while line := response.readline(LARGEST):
                size += len(line)
                if size > LARGEST:
                    raise Unreachable(f"the stream is longer than {LARGEST >> 20} MiB")
                name, _, value = line.partition(b":")
                if name != b"data":
                    continue
                if value.strip() == b"[DONE]":
                    return
                count += 1
                if count > _MOST_EVENTS:
                    raise Unreachable(f"the stream has more than {_MOST_EVENTS:,} events")
                yield json.loads(value)
        raise Unreachable("the stream ended without [DONE]")

    def _whole(self, method: str, path: str, body: Any, timeout: float) -> Reply:
        with self._sent(method, path, body, timeout, timeout) as response:
            return Reply(response.status, _read(response), _headers(response))

    @contextmanager
    def _sent(
        self, method: str, path: str, body: Any, timeout: float, deadline: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; what goes wrong inside is Unreachable, in words."""
        watch: _Deadline | None = None
        connection: http.client.HTTPConnection | None = None
        try:
            connection = self._connected(timeout)
            if deadline is not None:
                watch = _Deadline(connection.sock, deadline)
            headers = {"Connection": "close", "Accept-Encoding": "identity"}
            if self.key is not None:
                headers["Authorization"] = f"Bearer {self.key}"
            data = None
            if body is not None:
                data = json.dumps(body).encode()
                headers["Content-Type"] = "application/json"
            connection.request(method, self.place.path(path), body=data, headers=headers)
            yield connection.getresponse()
            if watch is not None and watch.over:
                raise Unreachable(_LATE)  # noqa: TRY301  as one that was raised inside
        except Unreachable as error:
            raise (Unreachable(_LATE) if watch is not None and watch.over else error) from error
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            late = watch is not None and watch.over
            raise Unreachable(_LATE if late else _said(error)) from error
        finally:
            if watch is not None:
                watch.cancel()
            if connection is not None:
                connection.close()

    def _connected(self, timeout: float) -> http.client.HTTPConnection:
        # Why direct: an endpoint of this machine must not be asked for through a proxy.
        host, port = self.place.host, self.place.port
        if not self.place.secure:
            plain = http.client.HTTPConnection(host, port, timeout=timeout)
            plain.connect()
            return plain
        context = ssl.create_default_context()
        secure = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        secure.connect()
        return secure


class _Deadline:
    """Shuts a socket when time is over: a peer that sends a byte a minute is never silent."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.over = False
        self._sock = sock
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.over = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        self._timer.cancel()


def _streams(response: http.client.HTTPResponse) -> bool:
    kind = str(response.getheader("content-type"))
    return response.status == http.client.OK and "event-stream" in kind


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return the body; Unreachable if it is cut off or longer than any answer is."""
    pieces, size = [], 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise Unreachable(f"the answer is longer than {LARGEST >> 20} MiB")
    # Guard: a read of at most so many bytes does not complain about missing ones.
    if response.length:
        raise Unreachable("the answer broke off")
    return b"".join(pieces)


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _said(error: Exception) -> str:  # noqa: PLR0911  one a kind
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not believed: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case UnicodeDecodeError():
            return "the stream is no UTF-8"
        case json.JSONDecodeError():
            return f"an event of the stream is no JSON: {error.msg}"
        case http.client.IncompleteRead():
            return "the answer broke off"
        case http.client.BadStatusLine() | http.client.UnknownProtocol():
            return "what answers speaks no HTTP"
        case _:
            said = error.strerror if isinstance(error, OSError) else None
            return said or str(error) or type(error).__name__
