"""The guard as an ASGI application: one door, a list of paths, keys, limits, and the contract."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from kimideploy.guard.contract import Contract, Outcome, prepared, shown
from kimideploy.guard.counts import Counts
from kimideploy.guard.exchange import JSON, LEFT, Exchange, Receive, Refusal, Scope, Send
from kimideploy.guard.keys import Keys
from kimideploy.guard.limits import Limits, Rates
from kimideploy.guard.memory import Memory
from kimideploy.guard.paths import Kind, kind_of, paths
from kimideploy.guard.stream import Events

#: seconds until the engine takes a connection, and until it says that it is healthy
_CONNECT, _HEALTH = 5.0, 3.0
_BRIEF = aiohttp.ClientTimeout(total=_HEALTH, sock_connect=_CONNECT)
#: seconds a request's body may take
_BODY = 60.0
#: seconds for which what the engine said of its health is true, and for which an idle connection to
#: it is kept: shorter than engines keep theirs, so that none is used that is just being closed
_FRESH, _IDLE = 1.0, 4.0
#: headers of the engine's answer that a client may see
_PASSED = ("content-type", "retry-after")
_OK, _STREAM = 200, "text/event-stream"
_DOWN = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a guard is told. `key` is what the engine itself asks for."""

    upstream: str
    contract: Contract
    keys: Keys | None = None
    key: str | None = None
    limits: Limits = field(default_factory=Limits)
    memory: int = 64 << 20
    #: told of each answer: method, path, status, seconds, whose key
    log: Callable[[str, str, int, float, str], None] | None = None


class Guard:
    """The application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.memory = Memory(settings.memory)
        self.counts = Counts()
        #: requests under way by whose key asked, and bytes of bodies that are being prepared
        self._under_way: dict[str, int] = {}
        self._bodies = 0
        self._health = (0.0, 0)
        self._asking = asyncio.Lock()
        self._patient = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT, sock_read=settings.limits.silence
        )
        self._rates = Rates(settings.limits.per_minute)
        self._session: aiohttp.ClientSession | None = None
        # Why once: an address is taken apart at some cost.
        self._urls = {path: URL(settings.upstream + path.decode()) for path in paths()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the application's own start and end."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                await self._serve(Exchange(scope, receive, send))
            case _:
                return

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            # Why no limit: how many requests are under way is limited before.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE),
            timeout=self._patient,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, exchange: Exchange) -> None:
        began, kind = time.monotonic(), kind_of(exchange.method, exchange.path)
        try:
            exchange.owner = self._admitted(exchange, kind)
            with self._slot(exchange.owner):
                await self._answer(exchange, kind)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            await self._broken(exchange, error)
        finally:
            self.counts.answered(kind or "none", exchange.status)
            if self.settings.log is not None:
                took = time.monotonic() - began
                path = exchange.path.decode("ascii", "replace")
                self.settings.log(exchange.method, path, exchange.status, took, exchange.owner)

    async def _broken(self, exchange: Exchange, error: Exception) -> None:
        """Say that the engine failed; after the first byte only the end of the connection can."""
        if exchange.begun:
            # uvicorn ends the connection without the last chunk, which is how a client sees it.
            raise ConnectionResetError("the engine broke off") from error
        late = isinstance(error, asyncio.TimeoutError)
        why = "did not answer in time" if late else "can't be reached"
        await exchange.refuse(Refusal(502, f"the engine {why}", "upstream_error"))

    @contextmanager
    def _slot(self, owner: str) -> Iterator[None]:
        """Count a request that is under way; raises Refusal when there is no room for it."""
        limits = self.settings.limits
        if not owner:
            yield
            return
        several = self.settings.keys is not None and len(self.settings.keys.names) > 1
        most = limits.under_way * (limits.share if several else 1)
        mine = self._under_way.get(owner, 0)
        if self.counts.in_flight >= limits.under_way or mine >= max(1, most):
            raise Refusal(503, "too many requests under way", "overloaded_error", retry_after="1")
        self._under_way[owner] = mine + 1
        self.counts.in_flight += 1
        try:
            yield
        finally:
            self.counts.in_flight -= 1
            self._under_way[owner] -= 1

    def _admitted(self, exchange: Exchange, kind: Kind | None) -> str:
        """Whose request it is; raises Refusal."""
        keys = self.settings.keys
        if kind is None:
            raise Refusal(404, "not found", "not_found_error")
        if kind == "health":
            return ""
        name: str | None = "anyone"
        if keys is not None:
            given = exchange.key
            name = keys.name_of(given) if given is not None else None
        elif not exchange.is_local:
            # Why: a page in somebody's browser reaches their loopback, too.
            raise Refusal(403, "without keys only this machine's own names serve", "forbidden")
        if name is None:
            raise Refusal(401, "no valid API key", "authentication_error")
        if exchange.method == "POST" and not exchange.is_json:
            raise Refusal(415, "a request is application/json", "invalid_request_error")
        wait = self._rates.wait(name) if kind in ("chat", "relay") else 0
        if wait > 0:
            raise Refusal(
                429, "too many requests of this key", "rate_limit_error",
                retry_after=str(int(wait) + 1),
            )  # fmt: skip
        return name

    async def _answer(self, exchange: Exchange, kind: Kind | None) -> None:
        match kind:
            case "metrics":
                text = self.counts.text(self.memory).encode()
                await exchange.send(_OK, text, (b"content-type", b"text/plain; version=0.0.4"))
            case "health":
                status = await self._healthy()
                text = b'{"status":"ok"}' if status == _OK else b'{"status":"no engine"}'
                await exchange.send(status, text, JSON)
            case "chat":
                body, outcome = self._prepared(await self._body(exchange), exchange.owner)
                await self._relayed(exchange, body, outcome)
            case _:
                body = await self._body(exchange)
                await self._relayed(exchange, body or None, None)

    async def _body(self, exchange: Exchange) -> bytes:
        """The request's body; raises Refusal for one too long, too slow, or one of too many."""
        limits = self.settings.limits
        if self._bodies > limits.bodies:
            raise Refusal(503, "too much is being read", "overloaded_error", retry_after="1")
        told = min(exchange.length, limits.body)
        self._bodies += told
        try:
            return await asyncio.wait_for(exchange.body(limits.body), _BODY)
        except asyncio.TimeoutError as error:
            raise Refusal(408, "the request did not come in time", "timeout_error") from error
        finally:
            self._bodies -= told

    async def _healthy(self) -> int:
        """200 while the engine is healthy, 503 else; asked once a second, whoever wants to know."""
        async with self._asking:
            when, status = self._health
            now = time.monotonic()
            if now - when > _FRESH or not status:
                status = await self._asked_health()
                self._health = (time.monotonic(), status)
            return status

    async def _asked_health(self) -> int:
        if self._session is None:
            return _DOWN
        try:
            async with self._session.get(
                self._urls[b"/health"], timeout=_BRIEF, allow_redirects=False
            ) as answer:
                return _OK if answer.status == _OK else _DOWN
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return _DOWN

    def _prepared(self, raw: bytes, owner: str) -> tuple[bytes, Outcome | None]:
        """The request for the engine, byte for byte the client's where nothing is to be done."""
        try:
            body = _read(raw)
        except (ValueError, RecursionError) as error:
            raise Refusal(
                400, f"the request is no JSON: {error}", "invalid_request_error"
            ) from error
        if not isinstance(body, dict):
            raise Refusal(400, "the request is no JSON object", "invalid_request_error")
        try:
            outcome = prepared(body, self.settings.contract, self.memory, owner)
        except RecursionError as error:
            words = "the request is nested too deeply"
            raise Refusal(400, words, "invalid_request_error") from error
        self.counts.prepared(outcome)
        if outcome.refusal is not None:
            raise Refusal(400, outcome.refusal, "invalid_request_error")
        return _written(outcome.body) if outcome.changed else raw, outcome

    async def _relayed(
        self,
        exchange: Exchange,
        body: bytes | None,
        outcome: Outcome | None,
    ) -> None:
        """Pass the request on and the answer back; a client that goes away ends both."""
        watch = asyncio.ensure_future(exchange.ended_by_client(asyncio.current_task()))
        try:
            await self._asked(exchange, body, outcome)
        except asyncio.CancelledError:
            if not exchange.left:
                raise
            exchange.status = LEFT
        finally:
            watch.cancel()

    async def _asked(
        self,
        exchange: Exchange,
        body: bytes | None,
        outcome: Outcome | None,
    ) -> None:
        if self._session is None:
            raise Refusal(503, "the guard is not up yet", "overloaded_error")
        headers = {
            "Content-Type": "application/json",
            "Accept": exchange.accept,
            # Why: what comes packed could be neither read nor passed on as it is.
            "Accept-Encoding": "identity",
        }
        if self.settings.key is not None:
            headers["Authorization"] = f"Bearer {self.settings.key}"
        async with self._session.request(
            exchange.method,
            self._urls[exchange.path],
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=self._patient,
        ) as answer:
            kept = [(name.encode(), value.encode()) for name in _PASSED
                    if (value := answer.headers.get(name)) is not None]  # fmt: skip
            if outcome is not None:
                kept += _told(outcome)
            if answer.content_type == _STREAM:
                await self._stream(exchange, answer, kept, outcome)
                return
            raw = await answer.read()
            if outcome is not None and answer.status == _OK:
                raw = self._shown(raw, outcome)
            await exchange.send(answer.status, raw, *kept)

    async def _stream(
        self,
        exchange: Exchange,
        answer: aiohttp.ClientResponse,
        headers: list[tuple[bytes, bytes]],
        outcome: Outcome | None,
    ) -> None:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await exchange.begin(answer.status, headers)
        if outcome is None:
            async for piece in answer.content.iter_any():
                await exchange.more(piece)
            await exchange.end(b"")
            return
        contract = self.settings.contract
        memory = self.memory if contract.missing == "repair" else None
        events = Events(contract, memory, outcome.trail)
        async for piece in answer.content.iter_any():
            ready = events.take(piece)
            if ready:
                await exchange.more(ready)
        await exchange.end(events.end())

    def _shown(self, raw: bytes, outcome: Outcome) -> bytes:
        """A whole answer for the client; what was thought is remembered."""
        contract = self.settings.contract
        try:
            body = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return raw
        changed = False
        choices = body.get("choices") if isinstance(body, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            message = choice.get("message") if isinstance(choice, dict) else None
            if not isinstance(message, dict):
                continue
            thought = message.get(contract.field)
            if contract.missing == "repair":
                said = thought if isinstance(thought, str) else ""
                self.memory.keep(outcome.trail.place(message), said)
            changed = shown(message, contract) or changed
        return msgspec.json.encode(body) if changed else raw


def _read(raw: bytes) -> Any:
    """The JSON in *raw*; ValueError if it is none."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        # Why: it takes no half of a letter, which clients that cut texts send.
        return json.loads(raw)


def _written(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, ValueError):
        return json.dumps(body).encode()


def _told(outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """What was done to a request, for whoever looks at the answer's headers."""
    sums = {
        "mapped": outcome.mapped,
        "repaired": outcome.repaired,
        "lost": outcome.lost,
        "renamed": outcome.renamed,
    }
    said = ", ".join(f"{name}={count}" for name, count in sums.items() if count)
    return [(b"x-kimideploy-guard", said.encode())] if said else []
