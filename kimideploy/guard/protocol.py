"""uvicorn's protocol with bounds on what comes before anybody has shown a key.

httptools puts no limit on a head, and uvicorn waits for one without an end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request's head and of what may follow a body; seconds a head may take; connections.
#: A head of a client with a long token has some two thousand bytes.
_HEAD, _SECONDS, _MOST = 64 << 10, 15.0, 4096
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n"
_CLOSE = b"connection: close\r\n\r\n"


class Bounded(HttpToolsProtocol):
    """Ends connections whose head is too long or too slow, and those beyond the most."""

    _size = 0
    _open = True
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head; a connection too many is not taken."""
        super().connection_made(transport)
        if len(self.connections) > _MOST:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and end what has no end."""
        super().data_received(data)
        if self._open:
            self._size += len(data)
        if self._size > _HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE + _CLOSE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._open, self._size = True, 0
        if self._late is None:
            self._wait()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of those behind a body only so many."""
        if not self._open:
            self._size += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._open, self._size = False, 0
        self._done()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._late = self.loop.call_later(_SECONDS, self._end)

    def _end(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _done(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
