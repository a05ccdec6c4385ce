"""The smoke requests: what is asked, and which answers are good."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kimideploy.conformance import smoke
from kimideploy.conformance.smoke import Promise
from kimideploy.conformance.verdict import Check, Verdict

PROMISE = Promise(
    model="kimi-k2.7-code",
    reasoning_field="reasoning",
    thinks=True,
    calls_tools=True,
    tool_id="functions.{name}:{index}",
    context=32_768,
)
NONSENSE = replace(PROMISE, subject="random weights")
GOOD: dict[str, Any] = {
    "reasoning": "17 × 20 is 340, 17 × 3 is 51.",
    "content": "391",
    "finish_reason": "stop",
}


def _call(**changes: object) -> dict[str, Any]:
    function: dict[str, object] = {"name": smoke.TOOL, "arguments": '{"code": "print(1)"}'}
    call: dict[str, Any] = {"id": "functions.run_python:0", "type": "function"}
    for name, value in changes.items():
        (function if name in function else call)[name] = value
    return {
        "content": None,
        "reasoning": "I need the tool.",
        "tool_calls": [{**call, "function": function}],
        "finish_reason": "tool_calls",
    }


def _failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if check.outcome == "fail"]


def _one(checks: tuple[Check, ...], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


# --- what is asked -----------------------------------------------------------------------


def test_there_is_room_to_think() -> None:
    """A thinking model that is cut off proves nothing."""
    assert [4096, 4096] == [ask(PROMISE)["max_tokens"] for ask in (smoke.question, smoke.task)]


def test_a_short_context_is_not_overdrawn() -> None:
    """An engine refuses a request that can't fit."""
    short = replace(PROMISE, context=2048)

    assert 1024 == smoke.question(short)["max_tokens"]


def test_the_model_chooses_the_tool_unless_it_makes_no_sense() -> None:
    """`auto` is what clients use, and what is rehearsed; a random model has to be told."""
    for subject in (PROMISE, replace(PROMISE, subject="stand-in")):
        assert "auto" == smoke.task(subject)["tool_choice"]
    assert smoke.TOOL == smoke.task(NONSENSE)["tool_choice"]["function"]["name"]
    assert {"thinking": False} == smoke.task(NONSENSE)["chat_template_kwargs"]


# --- the first answer --------------------------------------------------------------------


def test_a_good_answer_keeps_every_promise() -> None:
    """Reasoning in its field, clean content, the right number."""
    assert {"pass"} == {check.outcome for check in smoke.judge_answer(GOOD, PROMISE)}


@pytest.mark.parametrize(
    ("message", "failed"),
    [
        ({**GOOD, "reasoning": None}, ["reasoning"]),
        ({**GOOD, "reasoning": " \n"}, ["reasoning"]),
        ({"content": "391"}, ["reasoning"]),
        ({"content": "391", "reasoning_content": "17 × 23"}, ["reasoning"]),
        ({"content": "<think>17 × 23</think>391"}, ["reasoning", "content is clean"]),
        ({**GOOD, "content": "</think>391"}, ["content is clean"]),
        ({**GOOD, "content": "!!!!!!!!"}, ["the answer is right"]),
        ({**GOOD, "content": None}, ["the answer is right"]),
        ({**GOOD, "content": 391}, ["the answer is right"]),
    ],
)
def test_broken_answers_are_told_apart(message: dict[str, Any], failed: list[str]) -> None:
    """Each broken promise is named, and no other."""
    assert failed == _failed(smoke.judge_answer(message, PROMISE))


def test_the_other_field_is_named() -> None:
    """Whoever reads it knows where the reasoning went."""
    found = _one(smoke.judge_answer({"reasoning_content": "so"}, PROMISE), "reasoning")

    assert "message.reasoning_content" in found.evidence
    assert "install the version the plan pins" == found.fix


def test_the_other_engines_field_is_right_for_them() -> None:
    """SGLang and llama.cpp promise reasoning_content."""
    other = replace(PROMISE, reasoning_field="reasoning_content")

    assert [] == _failed(smoke.judge_answer({"reasoning_content": "so", "content": "391"}, other))


def test_thinking_without_end_has_its_own_cause() -> None:
    """Not the parser, but the tokens ran out."""
    message = {**GOOD, "content": None, "finish_reason": "length"}

    found = _one(smoke.judge_answer(message, PROMISE), "the answer is right")

    assert "thinking took all 4096 tokens" == found.evidence


def test_nonsense_is_not_judged_by_content() -> None:
    """Of a random model only the fields count, and that is said."""
    checks = smoke.judge_answer({"reasoning": "x", "content": "a<think>"}, NONSENSE)
    checks += smoke.judge_call({**_call(arguments="0E6"), "reasoning": "<|tool_calls_"}, NONSENSE)

    assert [] == _failed(checks)
    assert ["reasoning", "tool call", "tool id"] == [c.name for c in checks if c.outcome == "pass"]


def test_nonsense_is_judged_by_its_fields() -> None:
    """No reasoning in its field, no call where the grammar makes one, a foreign id: broken."""
    assert ["reasoning"] == _failed(smoke.judge_answer({"content": "x"}, NONSENSE))
    assert ["tool call"] == _failed(smoke.judge_call({"content": "x"}, NONSENSE))
    assert ["tool id"] == _failed(smoke.judge_call(_call(id="call_0"), NONSENSE))


# --- the second answer -------------------------------------------------------------------


def test_a_good_call_keeps_every_promise() -> None:
    """Parsed, with the model's own id, whole arguments, nothing leaked."""
    checks = smoke.judge_call(_call(), PROMISE)

    assert ["tool call", "tool id", "tool arguments", "nothing leaked"] == [c.name for c in checks]
    assert {"pass"} == {check.outcome for check in checks}


@pytest.mark.parametrize(
    "bad",
    ["call_abc", "run_python:0", "functions_run_python_0", "functions.run_python:", "functions.:0",
     "chatcmpl-tool-0123", "", None, 7, "functions.run_python:0 "],
)  # fmt: skip
def test_ids_the_model_does_not_know_are_refused(bad: object) -> None:
    """Foreign ids lead it into broken calls later."""
    assert ["tool id"] == _failed(smoke.judge_call(_call(id=bad), PROMISE))


@pytest.mark.parametrize("good", ["functions.run_python:0", "functions.run-it_2:17"])
def test_ids_of_the_model_pass(good: str) -> None:
    """The counter runs over the whole conversation; names may hold dashes."""
    assert [] == _failed(smoke.judge_call(_call(id=good), PROMISE))


@pytest.mark.parametrize(
    "bad",
    [
        '{"code": "print(',
        "{}",
        "[]",
        '{"code": 1}',
        "",
        None,
        {"code": "print(1)"},
        pytest.param("[" * 9**5, id="deep"),
    ],
)
def test_arguments_must_be_json_with_the_key(bad: object) -> None:
    """A client runs them as they are."""
    assert ["tool arguments"] == _failed(smoke.judge_call(_call(arguments=bad), PROMISE))


@pytest.mark.parametrize(
    "message",
    [{}, {"tool_calls": []}, {"tool_calls": None}, {"tool_calls": ["x"]}, {"tool_calls": [{}]}],
)
def test_no_call_is_no_call(message: dict[str, Any]) -> None:
    """Whatever stands in its place."""
    assert ["tool call"] == _failed(smoke.judge_call(message, PROMISE))


def test_a_call_left_in_the_content_names_the_parser() -> None:
    """The model called, the engine did not notice."""
    content = "<|tool_calls_section_begin|><|tool_call_begin|>functions.run_python:0"

    checks = smoke.judge_call({"content": content, "finish_reason": "stop"}, PROMISE)

    assert ["tool call", "nothing leaked"] == _failed(checks)
    assert "the tool parser is not set, or does not fit the model" == checks[0].cause


def test_a_leak_into_the_reasoning_is_found() -> None:
    """Beside a parsed call another one may be lost."""
    message = {**_call(), "reasoning": "so: <|tool_call_begin|>functions.x:1"}

    assert ["nothing leaked"] == _failed(smoke.judge_call(message, PROMISE))


def test_another_tool_than_the_one_there_is() -> None:
    """A name cut in the wrong place is a broken call."""
    assert ["tool call"] == _failed(smoke.judge_call(_call(name="run"), PROMISE))


def test_a_model_without_tools_owes_none() -> None:
    """Not applicable is neither good nor bad."""
    toolless = replace(PROMISE, calls_tools=False)

    assert ["not-applicable"] == [c.outcome for c in smoke.judge_call({}, toolless)]


# --- answers as they come ----------------------------------------------------------------


def test_a_stream_is_put_together() -> None:
    """Reasoning and content come in pieces, usage without any choice."""
    deltas: list[dict[str, object]] = [
        {"role": "assistant", "content": ""},
        {"reasoning": "a"},
        {"reasoning": "b"},
    ]
    deltas += [{"content": "39"}, {"content": "1", "reasoning": None}]
    pieces: list[object] = [{"choices": [{"delta": d, "finish_reason": None}]} for d in deltas]
    pieces += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {}}]

    assert {"content": "391", "reasoning": "ab", "finish_reason": "stop"} == smoke.joined(pieces)


@pytest.mark.parametrize("piece", [None, 3, [], {}, {"choices": 1}, {"choices": [None]}])
def test_pieces_without_a_message_make_none(piece: object) -> None:
    """Anything may come over the wire."""
    assert None is smoke.joined([piece])
    assert None is smoke.message_of(piece)


def test_a_refusal_is_quoted_and_a_known_one_explained() -> None:
    """The engine's own words, on one line, and not too many."""
    said = (
        '"auto" tool choice requires --enable-auto-tool-choice and\n --tool-call-parser' + "x" * 999
    )

    found = smoke.refused("tool call", 400, said.encode())

    assert "the engine runs without --enable-auto-tool-choice" == found.cause
    assert found.evidence.startswith('status 400: \'"auto" tool choice requires')
    assert 120 > len(found.evidence)


def test_evidence_can_not_speak_to_the_terminal() -> None:
    """What a model says is shown without its control characters."""
    message = {**GOOD, "content": "\x1b[2J</think>\x07"}

    shown = "".join(check.evidence for check in smoke.judge_answer(message, PROMISE))

    assert shown.isprintable()


def test_a_verdict_is_good_when_nothing_failed() -> None:
    """What does not apply does not count against it."""
    good = (Check("a", "pass", ""), Check("b", "not-applicable", ""))

    assert Verdict("http://x", "m", good).ok
    assert not Verdict("http://x", "m", (*good, Check("c", "fail", ""))).ok


def test_the_request_is_plain_json() -> None:
    """It can be sent as it is."""
    for ask in (smoke.question, smoke.task):
        assert ask(PROMISE) == json.loads(json.dumps(ask(PROMISE)))
