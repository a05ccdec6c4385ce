"""A run on disk: what was asked and what came back, to be judged again without the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kimideploy.conformance.answers import Answer
from kimideploy.conformance.asks import Ask
from kimideploy.conformance.send import Sender
from kimideploy.errors import MachineError, RequestError
from kimideploy.facts.types import Strict
from kimideploy.files import write_whole

_FILE = "run.json"
#: bytes; a full run has some hundred thousand
_LARGEST = 256 << 20
SCHEMA = "kimideploy.record/1"


class Exchange(Strict, frozen=True):
    """One request and its answer; the request is kept to be read, not to be sent again."""

    name: str
    path: str
    body: Any
    answer: Answer


class Record(Strict, frozen=True):
    """All exchanges of a run with the endpoint at `url`, and what they were made with."""

    url: str
    model: str
    suite: str
    seed: int
    has_key: bool
    exchanges: tuple[Exchange, ...]
    schema: str = SCHEMA


class Recorder:
    """Passes requests on to a sender and keeps what comes back."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.exchanges: list[Exchange] = []

    def send(self, ask: Ask) -> Answer:
        """Return the sender's answer."""
        answer = self._sender.send(ask)
        self.exchanges.append(Exchange(ask.name, ask.path, _shortened(ask.body), answer))
        return answer


class Replay:
    """Answers from a record."""

    def __init__(self, record: Record) -> None:
        self._answers = {one.name: one.answer for one in record.exchanges}

    def send(self, ask: Ask) -> Answer:
        """Return what was answered then; a request that wasn't made has an error."""
        missing = Answer(error="the record has no such request")
        return self._answers.get(ask.name, missing)


def write(folder: Path, record: Record) -> None:
    """Write *record* into *folder*, which is made if it is missing; raises MachineError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _FILE, msgspec.json.format(msgspec.json.encode(record), indent=1))
    except OSError as error:
        raise MachineError(f"the record can't be written to {folder}: {error.strerror}") from error


def read(folder: Path) -> Record:
    """Return the record in *folder*; raises RequestError."""
    path = folder / _FILE
    try:
        if path.stat().st_size > _LARGEST:
            raise RequestError(f"{path} is too large for a record")
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except OSError as error:
        raise RequestError(
            f"{path} can't be read: {error.strerror}", hint="--record DIR makes one"
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"{path} is no record of kimideploy: {error}") from error


def _shortened(body: Any) -> Any:
    """The body without what only takes room: a prompt over the context."""
    if isinstance(body, dict) and isinstance(body.get("messages"), list):
        texts = [m.get("content") if isinstance(m, dict) else None for m in body["messages"]]
        if any(isinstance(text, str) and len(text) > 1 << 14 for text in texts):
            return {**body, "messages": "[too long to keep]"}
    return body
