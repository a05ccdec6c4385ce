"""Every promise can be kept, and every one is seen to be broken."""

from __future__ import annotations

import pytest

from kimideploy.conformance.rules import RULES
from kimideploy.rehearsal.mischief import WAYS
from tests.conformance.endpoint import broken, misbehaving, verdict_on
from tests.contract.servers import FLAGS

#: fault of the stand-in → the promise it was made to break
BREAKS = {
    "sick": "health",
    "other-name": "model id",
    "open": "key is asked for",
    "echo-key": "key is not told",
    "drop-reasoning": "reasoning",
    "rename-reasoning": "reasoning",
    "leak-think": "content is clean",
    "leak-call": "nothing leaked",
    "wrong-sums": "the answer is right",
    "stream-differs": "streamed like whole",
    "no-calls": "tool call",
    "own-ids": "tool id",
    "bad-arguments": "tool arguments",
    "lose-fragments": "tool call streamed",
    "loose-arguments": "arguments fit a schema",
    "one-call": "parallel calls",
    "cut-dashes": "names with a dash",
    "call-anyway": "tool_choice none",
    "ignore-required": "tool_choice required",
    "ignore-name": "tool_choice of a name",
    "drop-history": "history arrives",
    "forget": "history is used",
    "forget-turns": "earlier turns are used",
    "wrong-finish": "finish reasons",
    "hide-tools": "prompt tokens",
    "ignore-max": "max_tokens",
    "ignore-stop": "stop words",
    "blind": "images",
    "cut-prompts": "context limit",
    "greedy": "sampling by default",
    "garble": "1 at once",
    "mix-up": "4 at once",
    "bangs": "sound words",
    "hold-stream": "the stream flows",
    "cut-stream": "reasoning",
    "error-500": "tool call",
    "redirect": "tool call",
}
#: breaks nothing: who counts no tokens has promised none
HARMLESS = {"no-usage"}
#: faults that break what they were made for and nothing else
ALONE = {
    "sick", "other-name", "open", "echo-key", "drop-reasoning", "own-ids",
    "loose-arguments", "call-anyway", "ignore-required", "ignore-name", "forget-turns",
    "hide-tools", "ignore-max", "ignore-stop", "blind", "cut-prompts", "greedy", "hold-stream",
}  # fmt: skip


def test_a_good_endpoint_keeps_every_promise() -> None:
    """Nothing is broken; only the flow of a stream that is over at once can't be told."""
    with misbehaving() as url:
        verdict = verdict_on(url)

    assert [] == broken(verdict)
    spared = [check.name for check in verdict.checks if check.outcome == "not-applicable"]
    assert ["the stream flows"] == spared
    assert [rule.name for rule in RULES] == [check.name for check in verdict.checks]
    assert 1.0 == verdict.score


@pytest.mark.parametrize("way", BREAKS)
def test_a_fault_breaks_its_promise(way: str) -> None:
    """The check that a fault was planted for fails, tells what was seen, and shows the request."""
    with misbehaving(way) as url:
        verdict = verdict_on(url)

    found = {check.name: check for check in verdict.checks if check.outcome == "fail"}
    assert BREAKS[way] in found
    check = found[BREAKS[way]]
    assert check.evidence
    assert check.seen
    assert all(seen.request and seen.answer for seen in check.seen)
    if way in ALONE:
        assert [BREAKS[way]] == list(found)


@pytest.mark.parametrize("way", sorted(HARMLESS))
def test_what_was_not_promised_breaks_nothing(way: str) -> None:
    """A check without its numbers does not apply."""
    with misbehaving(way) as url:
        assert [] == broken(verdict_on(url))


def test_every_promise_and_every_fault_is_tried() -> None:
    """A new rule needs a fault, and a new fault a rule."""
    assert set(WAYS) == set(BREAKS) | HARMLESS
    #: the crowd of sixteen is mixed up by the same fault as the crowd of four
    assert {rule.name for rule in RULES} - {"16 at once"} == set(BREAKS.values())


@pytest.mark.parametrize(
    ("flag", "name", "cause"),
    [
        ("--reasoning-parser", "reasoning", "the reasoning parser is not set"),
        ("--enable-auto-tool-choice", "tool call", "runs without --enable-auto-tool-choice"),
    ],
)
def test_a_missing_flag_is_named(flag: str, name: str, cause: str) -> None:
    """The stand-in without the flag fails as the engine does, and the cause is the flag."""
    at = FLAGS.index(flag)
    length = 2 if flag == "--reasoning-parser" else 1
    argv = ("vllm", "serve", "moonshotai/Kimi-K2.7-Code", *FLAGS[:at], *FLAGS[at + length :])
    with misbehaving(argv=argv) as url:
        verdict = verdict_on(url, suite="quick")

    check = next(check for check in verdict.checks if check.name == name)
    assert "fail" == check.outcome
    assert cause in str(check.cause)
    assert flag in str(check.fix)
