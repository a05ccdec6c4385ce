"""One contract, asked of the stand-in and of the real vLLM with a nano Kimi."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.cases import CASES, CHAT, MODEL, TOOL, Case, chat
from tests.contract.servers import FLAGS, Answer, Endpoint, stand_in

#: keys whose absence a random answer explains
_FREE = {"tool_calls"}


@pytest.fixture(scope="module")
def fake() -> Iterator[Endpoint]:
    """The stand-in, started with vLLM's words."""
    with stand_in(["vllm", "serve", "moonshotai/Kimi-K2.7-Code", *FLAGS]) as endpoint:
        yield endpoint


def named(value: Any, path: str) -> bool:
    """Whether *path* (dots, numbers for lists) leads to something in *value*."""
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return True


def shape(value: Any, path: str = "") -> set[str]:
    """Return every path in *value*, list items as one."""
    if isinstance(value, dict):
        inner = [(f"{path}.{key}", item) for key, item in value.items() if key not in _FREE]
    elif isinstance(value, list):
        inner = [(f"{path}[]", item) for item in value]
    else:
        return {path}
    return {path} | {found for at, item in inner for found in shape(item, at)}


def check(answer: Answer, case: Case) -> None:
    """Hold an answer against a case."""
    assert answer.status == case.status, answer.body[:300]
    if case.answers is not None:
        assert answer.headers["content-type"].startswith(case.answers)
    for path in case.keys:
        assert named(answer.json(), path), f"{path} is not in {answer.body[:300]!r}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_stand_in(fake: Endpoint, case: Case) -> None:
    """The stand-in answers with the status and the fields of the contract."""
    check(fake.ask(case), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_real(real: Endpoint, fake: Endpoint, case: Case) -> None:
    """The real vLLM does too, and the stand-in's JSON has the same keys."""
    answer = real.ask(case)
    check(answer, case)
    if answer.headers.get("content-type", "").startswith("application/json"):
        assert shape(fake.ask(case).json()) == shape(answer.json())


def streamed(endpoint: Endpoint, **changes: Any) -> tuple[Answer, list[Any]]:
    """Ask for a stream; return the answer and its events, the last one without its JSON."""
    case = Case("stream", "POST", CHAT, 200, chat(stream=True, **changes))
    answer = endpoint.ask(case)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = answer.body.decode().split("\n\n")
    assert blocks[-1] == ""
    assert all(block.startswith("data: ") for block in blocks[:-1])
    assert blocks[-2] == "data: [DONE]"
    return answer, [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def frames(events: list[Any]) -> None:
    """Hold a stream's events against what every client relies on."""
    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {MODEL}
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [e["choices"] for e in events[:-1] if not e["choices"]] == []
    finishes = [e["choices"][0]["finish_reason"] for e in events if e["choices"]]
    assert finishes[-1] in {"stop", "length", "tool_calls"}
    assert set(finishes[:-1]) == {None}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] >= 1


@pytest.mark.parametrize("which", ["fake", "real"])
def test_stream(which: str, request: pytest.FixtureRequest) -> None:
    """Both frame a stream alike: role first, one finish, usage last, then [DONE]."""
    endpoint: Endpoint = request.getfixturevalue(which)

    _, events = streamed(endpoint, stream_options={"include_usage": True})

    frames(events)


def test_stream_of_a_tool_call(fake: Endpoint) -> None:
    """The fragments of a streamed tool call join to the call that is answered whole."""
    wanted = {"tools": [TOOL], "max_tokens": 512}
    whole = fake.ask(Case("whole", "POST", CHAT, 200, chat(**wanted))).json()
    _, events = streamed(fake, **wanted)

    deltas = [call for e in events for call in e["choices"][0]["delta"].get("tool_calls", [])]
    call = whole["choices"][0]["message"]["tool_calls"][0]
    assert deltas[0]["id"] == call["id"] == "functions.run_python:0"
    assert call["function"]["name"] == deltas[0]["function"]["name"]
    assert call["function"]["arguments"] == "".join(d["function"]["arguments"] for d in deltas)


@pytest.mark.parametrize(
    "argv",
    [
        ["sglang", "serve", "--model-path", "m", "--served-model-name", MODEL,
         "--tool-call-parser", "kimi_k2", "--reasoning-parser", "kimi_k2"],
        ["python3", "-m", "sglang.launch_server", "--model-path", "m", "--kt-method", "RAWINT4",
         "--served-model-name", MODEL, "--tool-call-parser", "kimi_k2",
         "--reasoning-parser", "kimi_k2"],
        ["llama-server", "--model", "m.gguf", "--alias", MODEL, "--jinja"],
    ],
    ids=["sglang", "ktransformers", "llamacpp"],
)  # fmt: skip
def test_other_engines_say_reasoning_content(argv: list[str]) -> None:
    """SGLang, its fork and llama-server put the reasoning into `reasoning_content`."""
    with stand_in(argv) as endpoint:
        answer = endpoint.ask(Case("q", "POST", CHAT, 200, chat(max_tokens=512))).json()

    message = answer["choices"][0]["message"]
    assert message["reasoning_content"]
    assert "reasoning" not in message


def test_strict_thinking(fake: Endpoint) -> None:
    """With --strict-thinking a tool-call turn without its reasoning is refused by index."""
    lost = next(case for case in CASES if case.name == "history without reasoning")
    with stand_in(["vllm", "serve", "m", *FLAGS], "--strict-thinking") as endpoint:
        answer = endpoint.ask(lost)

    assert answer.status == 400
    assert "reasoning_content is missing" in answer.json()["error"]["message"]
    assert "index 1" in answer.json()["error"]["message"]
    assert fake.ask(lost).status == 200


def test_without_parsers() -> None:
    """Without its parsers vLLM leaves </think> in the content and refuses tool_choice auto."""
    with stand_in(["vllm", "serve", "m", "--served-model-name", MODEL]) as endpoint:
        text = endpoint.ask(Case("q", "POST", CHAT, 200, chat(max_tokens=512))).json()
        tools = endpoint.ask(Case("t", "POST", CHAT, 400, chat(tools=[TOOL])))

    assert "</think>" in text["choices"][0]["message"]["content"]
    assert tools.status == 400
    assert "--enable-auto-tool-choice" in tools.json()["error"]["message"]
