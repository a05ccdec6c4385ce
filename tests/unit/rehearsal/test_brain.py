"""What the stand-in answers, without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.rehearsal.brain import answer
from kimideploy.rehearsal.schema import example
from kimideploy.rehearsal.stream import events
from kimideploy.rehearsal.types import Mind, Problem, Reply
from kimideploy.rehearsal.wire import completion, problem_body

MIND = Mind(
    engine="vllm",
    model="kimi-k2.7-code",
    root="moonshotai/Kimi-K2.7-Code",
    context=4096,
    reasoning_parser=True,
    tool_parser=True,
    auto_tools=True,
)
STRICT = replace(MIND, strict_thinking=True)
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
    st.sampled_from(["vllm", "sglang", "llamacpp"]),
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "tools", "tool_choice", "max_tokens", "temperature", "stream"]
        ),
        json_values,
    )
    | json_values,
)
def test_any_json_is_answered_or_refused(engine: str, body: Any) -> None:
    """Whatever JSON comes, there is a reply that can be sent, or a refusal that can."""
    mind = replace(STRICT, engine=engine)

    found = answer(body, mind)

    if isinstance(found, Problem):
        assert found.status in {400, 404}
        json.dumps(problem_body(found, mind))
        return
    json.dumps(completion(found, mind, number=1, now=0))
    said = events(found, mind, number=1, now=0, options={"include_usage": True})
    assert list(said)[-1] == b"data: [DONE]\n\n"


SGLANG = replace(MIND, engine="sglang")
LLAMACPP = replace(MIND, engine="llamacpp")


@pytest.mark.parametrize(
    ("mind", "body", "said"),
    [
        (SGLANG, {"messages": []}, "Messages cannot be empty."),
        (SGLANG, {"tool_choice": "required"}, "Tools cannot be empty"),
        (SGLANG, {"max_tokens": 5000}, "max_completion_tokens is too large: 5000."),
        (SGLANG, {"max_tokens": 4090}, "You requested a total of"),
        (LLAMACPP, {"messages": "hi"}, "Expected 'messages' to be an array"),
        (LLAMACPP, {"messages": [HELLO | {"content": "x" * 20_000}]}, "available context size"),
    ],
)
def test_others_refuse_in_their_words(mind: Mind, body: dict[str, Any], said: str) -> None:
    """SGLang and llama-server refuse what vLLM takes, or in other words."""
    found = answer({"model": MIND.model, "messages": [HELLO]} | body, mind)

    assert isinstance(found, Problem)
    assert (400, True) == (found.status, said in found.message)


def test_what_only_vllm_refuses() -> None:
    """SGLang repeats any model's name, llama-server says its own; a limit too high is cut."""
    assert "other" == reply(SGLANG, model="other").model
    assert MIND.model == reply(LLAMACPP, model="other").model
    assert isinstance(answer({"messages": [HELLO], "model": "other"}, MIND), Problem)
    assert isinstance(reply(MIND, max_tokens=4096), Reply)
    assert reply(LLAMACPP, max_tokens=-1).content


@pytest.mark.parametrize(
    ("mind", "finish", "content"),
    [(MIND, "stop", ""), (SGLANG, "tool_calls", None), (LLAMACPP, "tool_calls", None)],
)
def test_how_a_named_call_ends(mind: Mind, finish: str, content: str | None) -> None:
    """vLLM says stop after a call of the tool that was named, the others tool_calls."""
    named = {"type": "function", "function": {"name": "a"}}

    found = reply(mind, tools=[tool("a")], tool_choice=named)

    assert (finish, content, 1) == (found.finish, found.content, len(found.calls))


@pytest.mark.parametrize("mind", [MIND, SGLANG, LLAMACPP])
def test_a_stream_joins_to_the_whole(mind: Mind) -> None:
    """Joined, the pieces of each choice are the message that is answered whole."""
    found = reply(mind, tools=[tool("a")], n=2)
    said = events(found, mind, number=1, now=0, options={})
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in list(said)[:-1]]
    whole = completion(found, mind, number=1, now=0)["choices"]

    field = "reasoning" if mind.engine == "vllm" else "reasoning_content"
    thought = "".join(delta.get(field) or "" for delta in deltas)
    parts = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert thought == "".join(choice["message"][field] for choice in whole)
    assert [found.calls[0].id] * 2 == [part["id"] for part in parts if "id" in part]
    joined = "".join(part["function"]["arguments"] for part in parts)
    assert joined == found.calls[0].arguments * 2


def test_without_its_parser_the_text_is_whole() -> None:
    """Without its parsers the content holds `</think>` and the call in the model's own words."""
    bare = replace(SGLANG, reasoning_parser=False, tool_parser=False)

    found = reply(bare, tools=[tool("a")])

    message = completion(found, bare, number=1, now=0)["choices"][0]["message"]
    assert None is message["reasoning_content"]
    assert "</think><|tool_calls_section_begin|>" in message["content"]
    assert "stop" == found.finish
