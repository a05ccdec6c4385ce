"""The vendor suite: a file of request bodies, as the public K2 vendor verifiers run it.

Each line is a chat completion request (https://github.com/MoonshotAI/K2-Vendor-Verifier). Counted
are the answers, how they finished, whether tool calls fit their schemas, and, against expected
results, how often a tool call came where one was due.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kimideploy.conformance.answers import Answer, quote
from kimideploy.conformance.asks import CHAT, Ask
from kimideploy.conformance.at_once import each
from kimideploy.conformance.schema import flaw
from kimideploy.conformance.send import Sender
from kimideploy.conformance.verdict import Check, Verdict
from kimideploy.errors import MachineError, RequestError
from kimideploy.facts.types import Strict

#: bytes; requests with long contexts have some megabytes
_LONGEST = 64 << 20
_CALLED = "tool_calls"


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
        return self.finish_reason == _CALLED


class Counts(Strict, frozen=True):
    """The sums, under the names the public verifiers give them."""

    success_count: int
    failure_count: int
    finish_stop: int
    finish_tool_calls: int
    finish_others: int
    successful_tool_call_count: int
    schema_validation_error_count: int
    #: of the calls, the share that fits its schema; None without a call
    schema_accuracy: float | None = None
    #: against expected results; None without any
    tool_call_precision: float | None = None
    tool_call_recall: float | None = None
    tool_call_f1: float | None = None


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
    for one in _lines(path):
        found[str(one.data_index)] = one
        found |= {one.hash: one} if one.hash else {}
    return found


def run(
    sender: Sender,
    path: Path,
    kept: Path,
    *,
    model: str,
    url: str,
    at_once: int,
    tell: Callable[[int, int, str], None],
) -> list[Result]:
    """Return the result of every request in *path*, in their order; *kept* has them, too.

    What *kept* already holds of this endpoint and was answered is not asked again, so that a run
    that was ended goes on. Raises RequestError and MachineError.
    """
    known = {one.hash: one for one in _lines(kept) if one.answered and one.url == url}
    total = count(path, model)
    found: list[Result] = []

    def new() -> Iterator[Sample]:
        for sample in samples(path, model):
            old = known.get(sample.hash)
            if old is None:
                yield sample
            else:
                found.append(msgspec.structs.replace(old, data_index=sample.number))
                tell(len(found), total, f"line {sample.number}, answered before")

    with _appending(kept) as write:
        for sample, result in each(lambda one: _asked(sender, one, url), new(), at_once):
            write(result)
            found.append(result)
            tell(len(found), total, f"line {sample.number}")
    return sorted(found, key=lambda one: one.data_index)


def counts(found: list[Result], expected: Mapping[str, Result] | None) -> Counts:
    """Return the sums; *expected* by hash, or by number of line where they have no hash."""
    called = [one for one in found if one.called]
    valid = sum(one.tool_calls_valid is True for one in called)
    stopped = sum(one.finish_reason == "stop" for one in found)
    finished = sum(one.finish_reason is not None for one in found)
    trigger = _trigger(found, expected) if expected is not None else (None, None, None)
    return Counts(
        success_count=sum(one.answered for one in found),
        failure_count=sum(not one.answered for one in found),
        finish_stop=stopped,
        finish_tool_calls=len(called),
        finish_others=finished - stopped - len(called),
        successful_tool_call_count=valid,
        schema_validation_error_count=len(called) - valid,
        schema_accuracy=valid / len(called) if called else None,
        tool_call_precision=trigger[0],
        tool_call_recall=trigger[1],
        tool_call_f1=trigger[2],
    )


def verdict(
    found: list[Result], sums: Counts, *, url: str, model: str, least: float | None
) -> Verdict:
    """Return the sums as checks; *least* is the trigger F1 that is asked for, if any is."""
    failed = next((one for one in found if not one.answered), None)
    wrong = next((one for one in found if one.tool_calls_valid is False), None)
    made = [one for one in found if one.tool_calls_valid is not None]
    valid = sum(one.tool_calls_valid is True for one in made)
    answered = f"{sums.success_count} of {len(found)} requests brought a message"
    fits = f"{valid} of {len(made)} tool calls fit"
    checks = [
        Check("requests answered", "pass", answered)
        if failed is None
        else Check(
            "requests answered", "fail", f"{answered}; line {failed.data_index}: {failed.flaw}"
        ),
        Check("arguments fit", "not-applicable", "no tool was called")
        if not made
        else Check("arguments fit", "pass", fits)
        if wrong is None
        else Check(
            "arguments fit",
            "fail",
            f"{fits} ({valid / len(made):.1%}); line {wrong.data_index}: {wrong.flaw}",
            cause="the model strays from the schema: no grammar holds it to it",
            link="https://github.com/MoonshotAI/K2-Vendor-Verifier",
        ),
        _f1(sums, least),
    ]
    return Verdict(url=url, model=model, checks=tuple(checks), suite="vendor")


def _f1(sums: Counts, least: float | None) -> Check:
    name, f1 = "trigger F1", sums.tool_call_f1
    if f1 is None:
        return Check(name, "not-applicable", "no expected results were given")
    said = f"{f1:.3f}; precision {_share(sums.tool_call_precision)}, recall"
    said = f"{said} {_share(sums.tool_call_recall)}"
    if least is None:
        return Check(name, "not-applicable", f"{said}; nobody asked for a least one")
    return Check(name, "pass" if f1 >= least else "fail", f"{said}; {least:g} is asked for")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _trigger(
    found: list[Result], expected: Mapping[str, Result]
) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 of "a tool call came"; None where nothing was due or came."""
    pairs = [
        (one.called, other.called)
        for one in found
        if (other := expected.get(one.hash) or expected.get(str(one.data_index))) is not None
    ]
    both = sum(mine and theirs for mine, theirs in pairs)
    mine, theirs = sum(one for one, _ in pairs), sum(other for _, other in pairs)
    if not pairs:
        raise RequestError("the expected results are of other requests: none has the same hash")
    precision = both / mine if mine else None
    recall = both / theirs if theirs else None
    f1 = 2 * both / (mine + theirs) if mine + theirs else None
    return precision, recall, f1


def _asked(sender: Sender, sample: Sample, url: str) -> Result:
    answer = sender.send(Ask(f"line {sample.number}", sample.body, path=CHAT))
    message = answer.message if answer.ok else None
    common = {"data_index": sample.number, "hash": sample.hash, "url": url}
    if message is None:
        return Result(**common, flaw=_said(answer), seconds=answer.seconds)  # type: ignore[arg-type]
    wrong, called = None, bool(message.calls) or message.finish == _CALLED
    if called:
        offered = dict(_offered(sample.body))
        flaws = (
            flaw(call.arguments, offered[call.name])
            if call.name in offered
            else f"{quote(call.name)} was not offered"
            for call in message.calls
        )
        wrong = next((one for one in flaws if one is not None), None)
        wrong = wrong if message.calls else "tool_calls is empty"
        if wrong is None and message.finish != _CALLED:
            wrong = f"beside calls finish_reason is {message.finish}"
    return Result(
        **common,  # type: ignore[arg-type]
        status="success",
        finish_reason=message.finish,
        tool_calls_valid=wrong is None if called else None,
        flaw=wrong,
        seconds=round(answer.seconds, 3),
    )


def _said(answer: Answer) -> str:
    return answer.said if not answer.ok else f"no message in {quote(answer.body)}"


def _offered(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"], function.get("parameters", {})


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


def _lines(path: Path) -> Iterator[Result]:
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


class _appending:  # noqa: N801  used as a function
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
