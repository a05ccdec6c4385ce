"""One request and its answer, as ASGI hands them over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from kimideploy.guard.listen import is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = (b"content-type", b"application/json")
#: what is counted for a client that went away
LEFT = 499
#: seconds a client may take for a piece of its answer
_TAKEN = 120.0


class Refusal(Exception):  # noqa: N818
    """An answer of the guard itself."""

    def __init__(self, status: int, message: str, kind: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.headers = status, message, kind, headers


def _host(name: str) -> str:
    """The host of "host:port", whatever stands in brackets."""
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.status = 0
        self.begun = False
        #: the client went away
        self.left = False
        self.owner = ""

    @property
    def accept(self) -> str:
        """What the client wants to have."""
        return self._headers.get(b"accept", b"*/*").decode("latin-1")

    @property
    def length(self) -> int:
        """How many bytes the body is said to have; 0 where nothing is said."""
        told = self._headers.get(b"content-length", b"0")
        return int(told) if told.isdigit() else 0

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON; a page can't say so without asking first."""
        kind = self._headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        return kind == b"application/json"

    @property
    def is_local(self) -> bool:
        """Whether it was asked for under a name of this machine, and by no page of elsewhere."""
        origin = self._headers.get(b"origin")
        names = [self._headers.get(b"host", b"")]
        names += [origin.partition(b"://")[2]] if origin is not None else []
        return all(is_loopback(_host(name.decode("latin-1"))) for name in names)

    @property
    def key(self) -> str | None:
        """The key that was sent, as OpenAI's or as Anthropic's clients send it."""
        kind, _, given = self._headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer" and given:
            return given.strip()
        other = self._headers.get(b"x-api-key")
        return other.decode("latin-1") if other is not None else None

    async def body(self, most: int) -> bytes:
        """Return the request's body; raises Refusal for one that is longer than *most* bytes."""
        if self.length > most:
            raise Refusal(413, f"the request is longer than {most} bytes", "request_too_large")
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refusal(LEFT, "the client went away", "client_gone")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise Refusal(413, f"the request is longer than {most} bytes", "request_too_large")
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def ended_by_client(self, work: asyncio.Task[Any] | None) -> None:
        """Cancel *work* when the client goes away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if work is not None:
            work.cancel()

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""
        self.status, self.begun = status, True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, piece: bytes) -> None:
        """Send a piece, at once; TimeoutError for a client that takes nothing any more."""
        message = {"type": "http.response.body", "body": piece, "more_body": True}
        await asyncio.wait_for(self._send(message), _TAKEN)

    async def end(self, piece: bytes) -> None:
        """Send the last piece."""
        await self._send({"type": "http.response.body", "body": piece})

    async def send(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.begin(status, [*headers, length])
        await self.end(body)

    async def refuse(self, refusal: Refusal) -> None:
        """Send an answer of the guard itself, in OpenAI's form."""
        error = {"message": refusal.message, "type": refusal.kind, "code": refusal.status}
        headers = [(name.replace("_", "-").encode(), value.encode())
                   for name, value in refusal.headers.items()]  # fmt: skip
        if refusal.status in (408, 413):  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await self.send(refusal.status, msgspec.json.encode({"error": error}), JSON, *headers)
