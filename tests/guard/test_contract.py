"""The contract restored: fields, ids, lost thoughts; pure but for a memory with a bound."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.guard.contract import Contract, Missing, Outcome, prepared, shown
from kimideploy.guard.memory import Memory, Trail
from kimideploy.guard.stream import Events

USER = {"role": "user", "content": "go"}


def _call(call_id: str = "functions.t:0", name: str = "t", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _answer(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [_call()], **more}


def _result(call_id: str = "functions.t:0") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "1"}


def _prepared(
    *messages: Any, missing: Missing = "refuse", memory: Memory | None = None, owner: str = "me"
) -> Outcome:
    contract = Contract(field="reasoning", missing=missing)
    store = memory if memory is not None else Memory(1 << 20)
    return prepared({"messages": list(messages)}, contract, store, owner)


# --- fields ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_fields",
    [{"reasoning_content": "why"}, {"reasoning_content": "why", "reasoning": ""},
     {"reasoning": "why", "reasoning_content": "why"}],
)  # fmt: skip
def test_the_engines_field_is_filled(given_fields: dict[str, str]) -> None:
    """Whichever field the client uses, the engine gets its own, and only that."""
    found = _prepared(USER, _answer(**given_fields), _result())

    message = found.body["messages"][1]
    assert "why" == message["reasoning"]
    assert "reasoning_content" not in message
    assert (True, 1, 0) == (found.changed, found.mapped, found.lost)


def test_what_is_right_is_not_touched() -> None:
    """A request in order goes on as it came."""
    found = _prepared(
        USER, _answer(reasoning="why"), _result(), {"role": "assistant", "content": ""}
    )

    assert (False, None, 0) == (found.changed, found.refusal, found.renamed)


@pytest.mark.parametrize(
    ("sends", "fields"),
    [
        (("reasoning", "reasoning_content"), {"reasoning", "reasoning_content"}),
        (("reasoning_content",), {"reasoning_content"}),
        (("reasoning",), {"reasoning"}),
    ],
)
def test_clients_get_the_fields_they_are_promised(sends: Any, fields: set[str]) -> None:
    """One or both, with the same text."""
    message = {"role": "assistant", "content": "c", "reasoning": "why"}

    shown(message, Contract(field="reasoning", sends=sends))

    assert fields == {name for name in message if name.startswith("reasoning")}
    assert {"why"} == {message[name] for name in fields}


# --- ids ---------------------------------------------------------------------------------


def test_foreign_ids_get_the_models_names() -> None:
    """Numbered over the conversation; results follow their calls, the right ones stay."""
    first = _answer(reasoning="a", tool_calls=[_call("call_1", "t"), _call("call_2", "u")])
    second = _answer(reasoning="b", tool_calls=[_call("functions.t:2")])
    third = _answer(reasoning="c", tool_calls=[_call("functions_t_3")])

    found = _prepared(
        USER, first, _result("call_2"), _result("call_1"), second, _result("functions.t:2"),
        third, _result("functions_t_3"),
    )  # fmt: skip

    ids = [c["id"] for m in found.body["messages"] for c in m.get("tool_calls", [])]
    assert ["functions.t:0", "functions.u:1", "functions.t:2", "functions.t:3"] == ids
    results = [m["tool_call_id"] for m in found.body["messages"] if m["role"] == "tool"]
    assert ["functions.u:1", "functions.t:0", "functions.t:2", "functions.t:3"] == results
    assert 3 == found.renamed


def test_the_same_foreign_id_twice_is_two_calls() -> None:
    """Each result belongs to the call before it."""
    one = _answer(reasoning="a", tool_calls=[_call("x")])
    two = _answer(reasoning="b", tool_calls=[_call("x")])

    found = _prepared(USER, one, _result("x"), two, _result("x"))

    results = [m["tool_call_id"] for m in found.body["messages"] if m["role"] == "tool"]
    assert ["functions.t:0", "functions.t:1"] == results


# --- lost thoughts -----------------------------------------------------------------------


def test_a_lost_thought_is_refused_passed_or_given_back() -> None:
    """As it was asked for; what is not known is refused even where repair is asked for."""
    lost = (USER, _answer(), _result())

    assert "at index 1" in str(_prepared(*lost).refusal)
    assert "at index 1" in str(_prepared(*lost, missing="repair").refusal)
    assert (None, 1) == (
        (passed := _prepared(*lost, missing="pass")).refusal, passed.lost,
    )  # fmt: skip


def test_what_was_once_sent_is_given_back() -> None:
    """Under the same key, after the same words; ids and blanks in JSON may have changed."""
    memory = Memory(1 << 20)
    call = _call(arguments='{"a":1}')
    _prepared(USER, _answer(reasoning="why", tool_calls=[call]), missing="repair", memory=memory)
    rewritten = _call("call_9", arguments='{ "a": 1 }')
    lost = _answer(tool_calls=[rewritten], content=None)

    found = _prepared(USER, lost, _result("call_9"), missing="repair", memory=memory)

    assert "why" == found.body["messages"][1]["reasoning"]
    assert (1, 1) == (found.repaired, found.renamed)


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "you"},
        {"question": {"role": "user", "content": "go there"}},
        {"arguments": '{"a":2}'},
    ],
)
def test_no_thought_goes_to_another_conversation(other: dict[str, Any]) -> None:
    """Another key, other words before, or another call: nothing is given back."""
    memory = Memory(1 << 20)
    call = _call(arguments='{"a":1}')
    _prepared(USER, _answer(reasoning="why", tool_calls=[call]), missing="repair", memory=memory)
    lost = _answer(tool_calls=[_call(arguments=other.get("arguments", '{"a":1}'))])

    found = _prepared(
        other.get("question", USER), lost, missing="repair", memory=memory,
        owner=other.get("owner", "me"),
    )  # fmt: skip

    assert found.refusal is not None


def test_the_memory_has_a_bound() -> None:
    """A hundred thousand conversations take no more than was said; the newest are there."""
    memory = Memory(1 << 20)
    for number in range(100_000):
        memory.keep(number.to_bytes(16, "big"), f"thought {number} " * 5)
        assert memory.size <= 1 << 20
    newest = (99_999).to_bytes(16, "big")
    assert str(memory.find(newest)).startswith("thought 99999")
    assert memory.find((0).to_bytes(16, "big")) is None
    assert 1_000 < len(memory) < 4_000


def test_what_is_asked_for_stays() -> None:
    """The one not asked for longest goes first; one that is too large is not kept at all."""
    memory = Memory(1000)
    memory.keep(b"a", "x" * 100)
    memory.keep(b"b", "x" * 100)
    memory.find(b"a")
    memory.keep(b"c", "x" * 100)
    memory.keep(b"d", "x" * 2000)

    assert [True, False, True, False] == [
        memory.find(p) is not None for p in (b"a", b"b", b"c", b"d")
    ]


# --- any request -------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls", "id", "function", "name", "reasoning",
                         "arguments", "tool_call_id", "reasoning_content", "type", "text"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_VALUES, max_size=4), st.sampled_from(["refuse", "repair", "pass"]))
def test_nothing_makes_it_raise(messages: list[Any], missing: Missing) -> None:
    """Whatever comes as messages, there is an outcome, and its body is JSON again."""
    found = _prepared(*messages, missing=missing)

    assert msgspec.json.encode(found.body)


# --- streams -----------------------------------------------------------------------------


def _event(**delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


STREAM = b"".join(
    [
        _event(role="assistant", content=""),
        _event(reasoning="I thi"),
        b": a comment\n\n",
        _event(reasoning="nk."),
        _event(content="beside"),
        _event(tool_calls=[{"index": 0, **_call(arguments="")}]),
        _event(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        _event(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}\n\n',
        b"data: {broken\n\n",
        b"data: [DONE]\n\n",
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.booleans())
def test_a_stream_may_be_cut_anywhere(cuts: list[int], crlf: bool) -> None:
    """However the pieces fall, the same is sent on, and the thought is remembered."""
    data = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    memory = Memory(1 << 20)
    trail = Trail("me")
    trail.add(USER)
    events = Events(Contract(field="reasoning", missing="repair"), memory, trail)
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]

    sent = b"".join([*map(events.take, pieces), events.end()])

    whole = Events(Contract(field="reasoning", missing="repair"), memory, trail)
    assert whole.take(data) + whole.end() == sent
    assert 2 == sent.count(b'"reasoning_content"')
    lost = _answer(tool_calls=[_call(arguments='{"a":1}')])
    found = _prepared(USER, lost, missing="repair", memory=memory)
    assert "I think." == found.body["messages"][1]["reasoning"]
