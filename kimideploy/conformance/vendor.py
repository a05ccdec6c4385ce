"""The vendor suite: a file of request bodies, as the public K2 vendor verifiers run it.

Each line is a chat completion request (https://github.com/MoonshotAI/K2-Vendor-Verifier). Counted
are the answers, how they finished, whether tool calls fit their schemas, and, against expected
results, how often a tool call came where one was due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kimideploy.conformance.answers import Answer, quote
from kimideploy.conformance.asks import CHAT, Ask
from kimideploy.conformance.at_once import each
from kimideploy.conformance.schema import flaw
from kimideploy.conformance.send import Sender
from kimideploy.conformance.vendor_files import (
    CALLED,
    Result,
    Sample,
    appending,
    count,
    lines,
    samples,
)
from kimideploy.conformance.verdict import Check, Verdict
from kimideploy.errors import RequestError
from kimideploy.facts.types import Strict


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
    known = {one.hash: one for one in lines(kept) if one.answered and one.url == url}
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

    with appending(kept) as write:
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
    wrong, called = None, bool(message.calls) or message.finish == CALLED
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
        if wrong is None and message.finish != CALLED:
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
