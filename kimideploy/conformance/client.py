"""Requests to an endpoint, over the standard library: whole answers and server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

#: bytes; no answer to a smoke request is nearly as long
LARGEST = 32 << 20


class Unreachable(Exception):  # noqa: N818
    """Nobody answered, or the answer broke off; the text says how."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Client:
    """An endpoint at `url`, e.g. http://127.0.0.1:8000; `key` is sent as a bearer token."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._key = key

    def get(self, path: str, *, timeout: float) -> Reply:
        """Return the answer to a GET; raises Unreachable."""
        return self._whole("GET", path, None, timeout)

    def post(self, path: str, body: Any, *, timeout: float) -> Reply:
        """Return the answer to *body* posted as JSON; raises Unreachable."""
        return self._whole("POST", path, body, timeout)

    def stream(self, path: str, body: Any, *, timeout: float) -> Iterator[Reply | Any]:
        """Yield each event of the answer to *body*; one Reply instead if it is no stream.

        `timeout` is the longest silence. Raises Unreachable, also where the stream ends without
        its [DONE].
        """
        connection, response = self._send("POST", path, body, timeout)
        try:
            if response.status != http.client.OK or "event-stream" not in str(
                response.getheader("content-type")
            ):
                yield Reply(response.status, response.read(LARGEST))
                return
            while line := response.readline(LARGEST):
                name, _, value = line.partition(b":")
                if name != b"data":
                    continue
                if value.strip() == b"[DONE]":
                    return
                yield json.loads(value)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(_said(error)) from error
        finally:
            connection.close()
        raise Unreachable("the stream ended without [DONE]")

    def _whole(self, method: str, path: str, body: Any, timeout: float) -> Reply:
        connection, response = self._send(method, path, body, timeout)
        try:
            body = response.read(LARGEST)
            # Guard: a read of at most so many bytes does not complain about missing ones.
            if response.length:
                raise Unreachable("the answer broke off, or is too long")
            return Reply(response.status, body)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(_said(error)) from error
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Any, timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        place = urlsplit(self.url)
        # Why direct: an endpoint of this machine must not be asked for through a proxy.
        connection = http.client.HTTPConnection(
            place.hostname or "127.0.0.1", place.port, timeout=timeout
        )
        headers = {"Connection": "close"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, place.path + path, body=data, headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(_said(error)) from error


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
