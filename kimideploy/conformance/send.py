"""Sending: a request goes out, an answer comes back, timed, and without the key in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from kimideploy.conformance.answers import Answer, joined
from kimideploy.conformance.asks import Ask
from kimideploy.conformance.client import Client, Reply, Unreachable
from kimideploy.conformance.rules.access import MARK

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
    """A real endpoint. `longest` caps each request, in seconds."""

    def __init__(
        self, client: Client, *, key: str | None, watch: Watch, longest: float = WHOLE
    ) -> None:
        self._clients = {
            "own": client.keyed(key),
            "none": client.keyed(None),
            "wrong": client.keyed("wrong-" + "0" * 26),
        }
        self._key = key
        self._watch = watch
        self._longest = longest

    def send(self, ask: Ask) -> Answer:
        """Return the answer to *ask*; whatever goes wrong is in it."""
        client = self._clients[ask.key]
        self._watch(ask.name, 0)
        began = time.monotonic()
        try:
            if ask.streamed:
                return self._streamed(client, ask, began)
            reply = (
                client.get(ask.path, timeout=self._longest)
                if ask.body is None
                else client.post(ask.path, ask.body, timeout=self._longest)
            )
            return self._whole(reply, began)
        except Unreachable as error:
            return Answer(error=self._masked(str(error)), seconds=time.monotonic() - began)

    def _streamed(self, client: Client, ask: Ask, began: float) -> Answer:
        events: list[object] = []
        first: float | None = None
        silence = min(SILENCE, self._longest)
        try:
            for piece in client.stream(ask.path, ask.body, timeout=silence, deadline=self._longest):
                if isinstance(piece, Reply):
                    return self._whole(piece, began)
                events.append(piece)
                if first is None and _speaks(piece):
                    first = time.monotonic() - began
                if len(events) % _EVERY == 0:
                    self._watch(ask.name, len(events))
        except Unreachable as error:
            said = f"after {len(events)} pieces: {error}"
            return Answer(error=self._masked(said), seconds=time.monotonic() - began)
        took = time.monotonic() - began
        text = self._masked(json.dumps(events))
        return Answer(status=200, events=tuple(json.loads(text)), first=first, seconds=took)

    def _whole(self, reply: Reply, began: float) -> Answer:
        headers = {name: self._masked(value) for name, value in reply.headers.items()}
        body = self._masked(reply.body[:_KEPT].decode("utf-8", "replace"))
        took = time.monotonic() - began
        return Answer(status=reply.status, body=body, headers=headers, seconds=took)

    def _masked(self, text: str) -> str:
        return text if not self._key else text.replace(self._key, MARK)


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
        with ThreadPoolExecutor(len(crowd)) as pool:
            yield from zip(crowd, pool.map(sender.send, crowd), strict=True)
