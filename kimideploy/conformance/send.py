"""Sending: a request goes out, an answer comes back, timed, and without the key in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kimideploy.conformance.answers import Answer, joined
from kimideploy.conformance.asks import Ask
from kimideploy.conformance.at_once import each
from kimideploy.conformance.client import Client, Reply, Unreachable

#: Seconds, guesses. A silent stream is broken after the first; a whole answer of 4096 tokens takes
#: the second at 3 tokens a second, slower than any engine that is of use.
SILENCE, WHOLE = 300.0, 1400.0
#: pieces of a stream between two words to the watcher
_EVERY = 16
#: no more than this of a body is kept; refusals and answers are far shorter
_KEPT = 1 << 20

#: told which request is under way and how many pieces of its answer have come
Watch = Callable[[str, int], None]


class Sender(Protocol):
    """Answers a request: an endpoint, or a record of one."""

    def send(self, ask: Ask) -> Answer:
        """Return the answer to *ask*; whatever goes wrong is in it."""


class Endpoint:
    """A real endpoint. `longest` caps each request, `whole` all of them, in seconds from now."""

    def __init__(
        self,
        client: Client,
        *,
        watch: Watch,
        longest: float = WHOLE,
        whole: float | None = None,
    ) -> None:
        self._clients = {
            "own": client,
            "none": client.keyed(None),
            "wrong": client.keyed("wrong-" + "0" * 26),
        }
        self._own = client
        self._watch = watch
        self._most = longest
        self._ends = time.monotonic() + whole if whole is not None else None

    @property
    def _longest(self) -> float:
        """Seconds the next request may take."""
        if self._ends is None:
            return self._most
        return max(0.0, min(self._most, self._ends - time.monotonic()))

    def send(self, ask: Ask) -> Answer:
        """Return the answer to *ask*; whatever goes wrong is in it."""
        client = self._clients[ask.key]
        began = time.monotonic()
        if self._longest <= 0:
            return Answer(error="not asked: the time for the whole run was over")
        self._watch(ask.name, 0)
        try:
            if ask.streamed:
                return self._streamed(client, ask, began)
            reply = (
                client.get(ask.path, timeout=self._longest)
                if ask.body is None
                else client.post(ask.path, ask.body, timeout=self._longest)
            )
            return self._whole(client, reply, began)
        except Unreachable as error:
            said = self._masked(client, str(error))
            return Answer(error=said, seconds=time.monotonic() - began)

    def _streamed(self, client: Client, ask: Ask, began: float) -> Answer:
        events: list[object] = []
        first: float | None = None
        silence = min(SILENCE, self._longest)
        try:
            for piece in client.stream(ask.path, ask.body, timeout=silence, deadline=self._longest):
                if isinstance(piece, Reply):
                    return self._whole(client, piece, began)
                events.append(piece)
                if first is None and _speaks(piece):
                    first = time.monotonic() - began
                if len(events) % _EVERY == 0:
                    self._watch(ask.name, len(events))
        except Unreachable as error:
            said = self._masked(client, f"after {len(events)} pieces: {error}")
            return Answer(error=said, seconds=time.monotonic() - began)
        took = time.monotonic() - began
        text = self._masked(client, json.dumps(events, ensure_ascii=False))
        # Why: JSON can spell half a letter, which nothing can write down again.
        text = text.encode("utf-8", "replace").decode()
        return Answer(status=200, events=tuple(json.loads(text)), first=first, seconds=took)

    def _whole(self, client: Client, reply: Reply, began: float) -> Answer:
        headers = {name: self._masked(client, v) for name, v in reply.headers.items()}
        # Why before it is cut: half a key is one, too.
        body = self._masked(client, reply.body.decode("utf-8", "replace"))[:_KEPT]
        took = time.monotonic() - began
        return Answer(status=reply.status, body=body, headers=headers, seconds=took)

    def _masked(self, client: Client, text: str) -> str:
        """The text without our key, and without the one that was sent, which may be a wrong one."""
        return client.masked(self._own.masked(text))


def _speaks(piece: object) -> bool:
    """Whether an event of a stream has text or a call in it."""
    message = joined([piece])
    return message is not None and bool(message.text.strip() or message.calls)


def collect(sender: Sender, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
    """Yield each answer as it is there; asks that go together are sent at once."""
    crowds: dict[str, list[Ask]] = {}
    for ask in asks:
        crowds.setdefault(ask.together or f"alone {ask.name}", []).append(ask)
    for crowd in crowds.values():
        yield from each(sender.send, crowd, len(crowd))
