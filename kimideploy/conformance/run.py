"""Send the smoke requests and collect the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from kimideploy.conformance import smoke
from kimideploy.conformance.client import Client, Reply, Unreachable
from kimideploy.conformance.smoke import Promise
from kimideploy.conformance.verdict import Check, Verdict

Request = Literal["question", "tool call"]
#: told that a request is under way and how many pieces of its answer have come
Watch = Callable[[Request, int], None]
PATH = "/v1/chat/completions"
#: Seconds, guesses. A silent stream is broken after the first; a whole answer of 4096 tokens takes
#: the second at 3 tokens a second, slower than any engine that is of use.
SILENCE, WHOLE = 300.0, 1400.0
#: pieces of a stream between two words to the watcher
_EVERY = 16


def run_smoke(client: Client, promise: Promise, watch: Watch) -> Verdict:
    """Return what the endpoint proved by two requests, one streamed and one whole."""
    checks = (*_question(client, promise, watch), *_task(client, promise, watch))
    return Verdict(url=client.url, model=promise.model, checks=checks)


def _question(client: Client, promise: Promise, watch: Watch) -> tuple[Check, ...]:
    pieces: list[object] = []
    watch("question", 0)
    try:
        for piece in client.stream(PATH, smoke.question(promise), timeout=SILENCE):
            if isinstance(piece, Reply):
                return (smoke.refused("question", piece.status, piece.body),)
            pieces.append(piece)
            if len(pieces) % _EVERY == 0:
                watch("question", len(pieces))
    except Unreachable as error:
        return (Check("question", "fail", f"after {len(pieces)} pieces: {error}"),)
    message = smoke.joined(pieces)
    if message is None:
        return (Check("question", "fail", "the stream held no message"),)
    return smoke.judge_answer(message, promise)


def _task(client: Client, promise: Promise, watch: Watch) -> tuple[Check, ...]:
    if not promise.calls_tools:
        return smoke.judge_call({}, promise)
    watch("tool call", 0)
    try:
        reply = client.post(PATH, smoke.task(promise), timeout=WHOLE)
    except Unreachable as error:
        return (Check("tool call", "fail", str(error)),)
    message = smoke.message_of(reply.json())
    if reply.status != 200 or message is None:  # noqa: PLR2004
        return (smoke.refused("tool call", reply.status, reply.body),)
    return smoke.judge_call(message, promise)
