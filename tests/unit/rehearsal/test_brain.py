"""What the stand-in answers, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.rehearsal.brain import answer
from kimideploy.rehearsal.schema import example
from kimideploy.rehearsal.stream import events
from kimideploy.rehearsal.types import Mind, Problem, Reply
from kimideploy.rehearsal.wire import completion

MIND = Mind(
    engine="vllm",
    model="kimi-k2.7-code",
    root="moonshotai/Kimi-K2.7-Code",
    context=4096,
    reasoning_parser=True,
    tool_parser=True,
    auto_tools=True,
)
STRICT = Mind(
    engine="vllm",
    model="kimi-k2.7-code",
    root="m",
    context=4096,
    reasoning_parser=True,
    tool_parser=True,
    auto_tools=True,
    strict_thinking=True,
)
HELLO = {"role": "user", "content": "hi"}


def tool(name: str, **schema: Any) -> dict[str, Any]:
    """Return a tool with a schema."""
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def reply(mind: Mind = MIND, **body: Any) -> Reply:
    """Return the reply to a request; a refusal fails the test."""
    found = answer({"model": MIND.model, "messages": [HELLO]} | body, mind)
    assert isinstance(found, Reply), found
    return found


def test_it_always_thinks() -> None:
    """Thinking is forced: no answer comes without reasoning."""
    assert reply().reasoning
    assert reply(tools=[tool("f")]).reasoning
    assert reply(chat_template_kwargs={"thinking": False}).reasoning


def test_thinking_eats_max_tokens() -> None:
    """A small max_tokens is used up by thinking: no content, finish reason length."""
    found = reply(max_tokens=3)

    assert (found.content, found.finish, found.completion_tokens) == (None, "length", 3)


def test_ids_count_over_the_conversation() -> None:
    """The index in functions.NAME:IDX goes on counting where the history stopped."""
    called = {"role": "assistant", "tool_calls": [{}, {}], "reasoning_content": "r"}
    found = reply(messages=[HELLO, called, HELLO], tools=[tool("run-it")])

    assert found.calls[0].id == "functions.run-it:2"


def test_choices() -> None:
    """none calls nothing, a name calls that tool, a tool's result is answered in words."""
    tools = [tool("a"), tool("b")]
    named = {"type": "function", "function": {"name": "b"}}

    assert reply(tools=tools, tool_choice="none").calls == ()
    assert reply(tools=tools, tool_choice=named).calls[0].name == "b"
    assert reply(tools=tools, tool_choice="required").calls[0].name == "a"
    result = {"role": "tool", "tool_call_id": "functions.a:0", "content": "42"}
    assert "42" in str(reply(tools=tools, messages=[HELLO, result]).content)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_strict_thinking_accepts_either_name(key: str) -> None:
    """With its reasoning, under either name, a tool-call turn is accepted; without, refused."""
    turn = {"role": "assistant", "content": "", "tool_calls": [{"id": "functions.f:0"}]}

    assert isinstance(reply(STRICT, messages=[HELLO, turn | {key: "why"}]), Reply)
    lost = answer({"messages": [HELLO, turn]}, STRICT)
    assert isinstance(lost, Problem)
    assert "index 1" in lost.message


def test_arguments_fit_the_schema() -> None:
    """Arguments hold the required keys with values of their kinds."""
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer", "minimum": 3},
            "mode": {"enum": ["fast", "slow"]},
            "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "left": {"type": "string"},
        },
        "required": ["text", "count", "mode", "list"],
    }

    made = example(schema)

    assert set(made) == {"text", "count", "mode", "list"}
    assert isinstance(made["text"], str)
    assert (made["count"], made["mode"], made["list"]) == (3, "fast", [True, True])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "function", "name", "type", "tool_calls", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "tools", "tool_choice", "max_tokens", "temperature", "stream"]
        ),
        json_values,
    )
    | json_values
)
def test_any_json_is_answered_or_refused(body: Any) -> None:
    """Whatever JSON comes, there is a reply that can be sent, or a refusal."""
    found = answer(body, STRICT)

    if isinstance(found, Problem):
        assert found.status in {400, 404}
        return
    json.dumps(completion(found, MIND, number=1, now=0))
    assert (
        list(events(found, MIND, number=1, now=0, options={"include_usage": True}))[-1]
        == b"data: [DONE]\n\n"
    )
