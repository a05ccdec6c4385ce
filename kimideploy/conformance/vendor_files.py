"""The files of the vendor suite: requests, and results that a run goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kimideploy.errors import MachineError, RequestError

#: bytes; requests with long contexts have some megabytes
_LONGEST = 64 << 20
#: how an answer finishes that is a tool call
CALLED = "tool_calls"


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of results; what other verifiers write beside these fields is not read.

    `hash` tells the request from another. `tool_calls_valid` is None where no call was made.
    """

    data_index: int
    hash: str = ""
    status: str = "failed"
    finish_reason: str | None = None
    tool_calls_valid: bool | None = None
    url: str = ""
    flaw: str | None = None
    seconds: float | None = None

    @property
    def answered(self) -> bool:
        """Whether a message came."""
        return self.status == "success"

    @property
    def called(self) -> bool:
        """Whether the answer is a tool call."""
        return self.finish_reason == CALLED


@dataclass(frozen=True, slots=True)
class Sample:
    """A request of the file, and the number of its line."""

    number: int
    body: dict[str, Any]

    @property
    def hash(self) -> str:
        """What tells this request from another, whichever model it is for."""
        body = {name: value for name, value in self.body.items() if name != "model"}
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def samples(path: Path, model: str) -> Iterator[Sample]:
    """Yield the requests in *path*, for *model*; raises RequestError with file and line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), 1):
                if line.strip():
                    yield Sample(number, _prepared(line, model, f"{path}:{number}"))
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from error


def count(path: Path, model: str) -> int:
    """Return how many requests *path* holds; raises RequestError for a line that is none."""
    found = sum(1 for _ in samples(path, model))
    if not found:
        raise RequestError(f"{path} holds no requests")
    return found


def results(path: Path) -> dict[str, Result]:
    """Return the results in *path* by the hash of their request, and by the number of its line.

    Nothing if there is no file. A last line that was cut off is left out; raises RequestError for
    any other that is none. Others' hashes are made in another way, so the number serves, too.
    """
    found: dict[str, Result] = {}
    for one in lines(path):
        found[str(one.data_index)] = one
        found |= {one.hash: one} if one.hash else {}
    return found


class appending:  # noqa: N801  used as a function
    """Opens a file of results to be added to; a last line that was cut off goes first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Callable[[Result], None]:
        try:
            self._file = self._path.open("ab+")
            self._file.seek(0)
            raw = self._file.read()
            end = raw.rfind(b"\n") + 1
            if raw[end:].strip() and not raw[end:].lstrip().startswith(b"{"):
                raise RequestError(f"{self._path} holds something else than results")
            self._file.truncate(end)
        except OSError as error:
            raise MachineError(f"{self._path} can't be written: {error.strerror}") from error
        return self._write

    def _write(self, result: Result) -> None:
        self._file.write(msgspec.json.encode(result) + b"\n")
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _prepared(line: bytes, model: str, where: str) -> dict[str, Any]:
    """The body of a line, for our model, its invented role turned into a known one."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: no JSON: {error}") from error
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise RequestError(
            f"{where}: no chat completion request: it has no list of messages",
            hint="one request body a line, as samples.jsonl of the K2 vendor verifier has them",
        )
    known = [{**m, "role": "system"} if m.get("role") == "_input" else m for m in messages]
    return {**body, "messages": known, "model": model}


def lines(path: Path) -> Iterator[Result]:
    """Yield the results in *path*, nothing if there is no file; raises RequestError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from error
    lines = raw.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=Result)
        except (msgspec.DecodeError, RecursionError) as error:
            if number == len(lines):
                return
            raise RequestError(f"{path}:{number}: no result: {error}") from error
