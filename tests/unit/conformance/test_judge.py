"""Answers are read whatever they are, and judged by pure rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.conformance.answers import Answer, Call, joined, quote, whole
from kimideploy.conformance.asks import asks
from kimideploy.conformance.client import place
from kimideploy.conformance.judge import checks, needed, share, speed
from kimideploy.conformance.promise import CROWDS, Promise, draw
from kimideploy.conformance.rules import RULES, rules
from kimideploy.conformance.rules.base import Heard
from kimideploy.conformance.schema import flaw
from kimideploy.conformance.verdict import Check, Verdict
from kimideploy.errors import RequestError

PROMISE = Promise(model="kimi-k2.7-code", keeps_turns=True, context=8192, has_key=True)
WORDS = draw(1)


def _whole(**message: Any) -> Answer:
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    return Answer(status=200, body=json.dumps(body))


def _find(name: str, **answers: Answer) -> str:
    rule = next(rule for rule in RULES if rule.name == name)
    named = {key.replace("_", " "): value for key, value in answers.items()}
    finding = rule.find(Heard(PROMISE, WORDS, named))
    return f"{finding.outcome}: {finding.evidence}; {finding.cause}; {finding.fix}"


# --- what is asked -----------------------------------------------------------------------


def test_each_run_has_words_of_its_own() -> None:
    """Equal seeds draw equal words; no word is drawn twice, so that none is told by another."""
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    every = [draw(1).secret, *draw(1).echoes]
    assert len(set(every)) == len(every) == 1 + sum(CROWDS)


def test_there_is_room_to_think() -> None:
    """4096 tokens, or half of a context that holds less."""
    assert [4096, 1024] == [
        Promise(model="m", context=context).max_tokens for context in (32_768, 2048)
    ]


def test_requests_are_what_rules_name() -> None:
    """Every request a rule looks at exists, and every request is looked at."""
    every = set(asks(PROMISE, WORDS))
    assert every == set(needed(RULES, PROMISE))


def test_the_code_word_is_told_in_the_reasoning_alone() -> None:
    """It is in no content and no call, and in no request that is to go without it."""
    for name, ask in asks(PROMISE, WORDS).items():
        text = json.dumps(ask.body)
        assert (WORDS.secret in text) == ("with reasoning" in name), name
        for message in (ask.body or {}).get("messages", []):
            assert WORDS.secret not in json.dumps(
                [message.get("content"), message.get("tool_calls")]
            )


def test_quick_is_part_of_full() -> None:
    """And asks far less."""
    assert set(rules("quick")) < set(rules("full"))
    assert len(needed(rules("quick"), PROMISE)) < len(needed(rules("full"), PROMISE)) / 3


# --- what comes back ---------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "message", "delta", "content", "reasoning", "tool_calls",
                         "index", "function", "name", "arguments", "id", "finish_reason", "usage",
                         "prompt_tokens", "data", "max_model_len", "text", "type"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_JSON, st.lists(_JSON, max_size=4), st.sampled_from([200, 302, 400, 401, 500]))
def test_any_answer_is_judged(body: Any, events: list[Any], status: int) -> None:
    """Whatever JSON comes, whole or streamed, every rule finds something, in printable words."""
    every = asks(PROMISE, WORDS)
    answer = Answer(status=status, body=json.dumps(body))
    stream = Answer(status=status, body="", events=tuple(events), first=0.1, seconds=2.0)
    for one in (answer, stream):
        heard = Heard(PROMISE, WORDS, dict.fromkeys(every, one))
        found = checks(RULES, heard, every)
        assert [rule.name for rule in RULES] == [check.name for check in found]
        assert all(check.evidence.isprintable() for check in found)
        speed(heard.answers)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_quotes_steer_no_terminal(text: str) -> None:
    """One line, printable, no longer than asked."""
    assert quote(text).isprintable()
    assert len(quote(text)) <= 200


def test_fragments_assemble() -> None:
    """Names and ids once, arguments piece by piece, calls apart by their index."""

    def event(*parts: dict[str, Any], **delta: Any) -> dict[str, Any]:
        return {"choices": [{"delta": {"tool_calls": list(parts)} | delta}]}

    found = joined(
        [
            event(reasoning="I "),
            event({"index": 1, "id": "b", "function": {"name": "u", "arguments": ""}}),
            event({"index": 0, "id": "a", "function": {"name": "t", "arguments": '{"a"'}}),
            event({"index": 0, "function": {"arguments": ":1}"}}, reasoning="think"),
            {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}},
        ]
    )

    assert found is not None
    assert {"reasoning": "I think"} == found.reasoning
    assert {Call("a", "t", '{"a":1}'), Call("b", "u", "")} == set(found.calls)
    assert ("tool_calls", 7, 9, None) == (
        found.finish, found.prompt_tokens, found.completion_tokens, found.flaw,
    )  # fmt: skip


@pytest.mark.parametrize(
    "part", [{"function": {}}, {"index": "0"}, 7, {"index": 0, "id": "other", "function": {}}]
)
def test_fragments_that_do_not_assemble_are_told(part: Any) -> None:
    """Without an index, or with another id for the same call."""
    first = {"index": 0, "id": "a", "function": {"name": "t"}}
    found = joined([{"choices": [{"delta": {"tool_calls": [first, part]}}]}])

    assert found is not None
    assert found.flaw is not None


def test_content_in_parts_is_text() -> None:
    """As some proxies send it."""
    message = {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    found = whole({"choices": [{"message": message}]})

    assert found is not None
    assert "ab" == found.content


# --- rules -------------------------------------------------------------------------------


def test_reasoning_in_content_names_the_parser() -> None:
    """The words that lead to the flag."""
    said = _find("reasoning", question_streamed=_whole(content="I think.</think>391"))

    assert said.startswith("fail")
    assert "the reasoning parser is not set" in said
    assert "--reasoning-parser kimi_k2" in said


def test_a_field_that_is_gone_may_be_a_proxys_doing() -> None:
    """Without a trace of thoughts the audit is named, too."""
    said = _find("reasoning", question_streamed=_whole(content="391"))

    assert "something between drops the field" in said
    assert "kimideploy audit" in said


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (400, '"auto" tool choice requires --enable-auto-tool-choice', "without --enable-auto"),
        (401, "no", "asks for a key"),
        (400, "reasoning_content is missing in assistant", "refuses history without"),
        (307, "", "not the endpoint's own"),
    ],
)
def test_a_refusal_has_its_cause(status: int, body: str, cause: str) -> None:
    """What servers say is known."""
    assert cause in _find("tool call", call=Answer(status=status, body=body))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("!" * 40, "fail"), ("! " * 39, "fail"), ("the same again. " * 12, "fail"),
        ("391", "pass"), ("-" * 30, "pass"), ("1 2 3 4 5 6 7 8 9 10 11 12", "pass"),
        ("".join(f"line {n} of a program\n" for n in range(200)), "pass"),
    ],
)  # fmt: skip
def test_words_are_sound_or_not(text: str, outcome: str) -> None:
    """One sign or one passage for ever is no language; a long list is."""
    assert _find("sound words", question=_whole(content=text)).startswith(outcome)


# --- schemas -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "schema", "said"),
    [
        ('{"a": 1}', {"type": "object", "required": ["a"]}, None),
        ('{"a": "1"}', {"properties": {"a": {"type": "integer"}}}, "at .a: "),
        ("{", {}, "is no JSON"),
        (None, {}, "no arguments"),
        ("{}", {"type": 7}, "the schema is none"),
        ("{}", {"$ref": "http://127.0.0.1:1/x"}, "the schema can't be used"),
        ("{}", {"$ref": "file:///etc/passwd"}, "the schema can't be used"),
        ('{"a": 1}', {"$ref": "#/$defs/a", "$defs": {"a": {"required": ["b"]}}}, "required"),
        ("[" * 100_000, {}, "is no JSON"),
    ],
)
def test_arguments_fit_or_do_not(arguments: str | None, schema: Any, said: str | None) -> None:
    """In words; and nothing outside the schema is fetched."""
    found = flaw(arguments, schema)

    assert (found is None) == (said is None)
    assert said is None or said in str(found)


@settings(max_examples=150, deadline=None)
@given(_JSON, _JSON)
def test_no_schema_makes_it_raise(value: Any, schema: Any) -> None:
    """Whatever a hostile tool declares."""
    found = flaw(json.dumps(value), schema)

    assert found is None or isinstance(found, str)


# --- verdicts ----------------------------------------------------------------------------


def test_a_verdict_has_a_score() -> None:
    """Of what applies; nothing applies, no score."""
    kept, broken = Check("a", "pass", ""), Check("b", "fail", "")
    spared = Check("c", "not-applicable", "")

    assert 0.5 == Verdict("u", "m", (kept, broken, spared)).score
    assert Verdict("u", "m", (spared,)).score is None
    assert Verdict("u", "m", (kept, spared)).ok


@pytest.mark.parametrize(("part", "value"), [(0.5, 2), (0.95, 4), (0.05, 1), (1.0, 4)])
def test_shares_are_by_the_nearest_rank(part: float, value: float) -> None:
    """A value that was seen, never one between."""
    assert value == share([4, 2, 1, 3], part)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("https://api.moonshot.ai/v1", "https://api.moonshot.ai"),
        ("https://h/proxy/v1", "https://h/proxy"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses_are_read(url: str, shown: str) -> None:
    """With or without the /v1."""
    assert shown == place(url).url


@pytest.mark.parametrize(
    "url",
    ["", "h:8000", "ftp://h", "http://", "http://h:x", "http://u:p@h", "http://h?x", "http://h/ä"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(RequestError):
        place(url)
