"""The stand-in against what the real vLLM 0.32.0 answered (tests/judges/logs), word for word."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimideploy.rehearsal.server import Server
from kimideploy.rehearsal.types import Mind

LOGS = Path(__file__).parents[2] / "judges" / "logs"
RECORDED: dict[str, Any] = {
    answer["name"]: answer
    for answer in json.loads((LOGS / "vllm-0.32.0-api.json").read_text(encoding="utf-8"))
}
MIND = Mind(
    engine="vllm",
    model="kimi-k2.7-code",
    root="/models/tiny",
    context=4096,
    reasoning_parser=True,
    tool_parser=True,
    auto_tools=True,
)
#: what the stand-in does not do, by design
NOT_SERVED = {
    "completions": "no /v1/completions",
    "completions, stream": "no /v1/completions",
    "tokenize": "no tokenizer",
    "chat, logprobs": "no probabilities",
    "content with an image": "the tiny model takes none, Kimi K2.7 does",
    "metrics": "a choice of them, tested below",
}
#: told by the number of tokens, which a tokenizer decides
COUNTED = {"prompt larger than the context", "prompt larger than the context, stream"}
WHOLE = [name for name in RECORDED if name not in NOT_SERVED and name not in COUNTED]
HEADERS = ("content-type", "transfer-encoding", "allow", "server", "vary")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A stand-in for the recorded engine."""
    with Server(("127.0.0.1", 0), MIND) as server:
        server.server_activate()
        server.ready.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def asked(port: int, recorded: Any) -> tuple[int, dict[str, str], str]:
    """Ask what was asked then; return status, headers and body."""
    request = recorded["request"]
    body = json.dumps(request).encode() if request is not None else None
    if isinstance(request, dict) and "raw" in request:
        body = request["raw"].encode("latin-1")
    headers = {"content-type": "application/json"} if body is not None else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    path = recorded["path"]
    connection.request(recorded["method"], path, body, headers | recorded["request_headers"])
    reply = connection.getresponse()
    named = {name.lower(): value for name, value in reply.getheaders()}
    text = reply.read().decode()
    connection.close()
    return reply.status, {name: named[name] for name in HEADERS if name in named}, text


def keys(value: Any) -> set[str]:
    """Return every path in *value*, but those below a tool call: random weights make none."""
    if isinstance(value, dict):
        return {
            f".{name}{path}"
            for name, item in value.items()
            if name != "tool_calls"
            for path in keys(item)
        }
    if isinstance(value, list):
        return {""} | {f"[]{path}" for item in value for path in keys(item)}
    return {""}


def chunks(text: str) -> list[Any]:
    """Return a stream's events, the last one checked and left out."""
    *events, done, end = text.split("\n\n")
    assert ("data: [DONE]", "") == (done, end)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("name", WHOLE)
def test_status_and_headers(name: str, port: int) -> None:
    """Status and headers are those of the real engine."""
    recorded = RECORDED[name]

    status, headers, _ = asked(port, recorded)

    wanted = {key: recorded["headers"][key] for key in HEADERS if key in recorded["headers"]}
    assert (recorded["status"], wanted) == (status, headers)


@pytest.mark.parametrize(
    "name", [name for name in WHOLE if RECORDED[name]["status"] >= 400 and RECORDED[name]["body"]]
)
def test_refusals(name: str, port: int) -> None:
    """Every refusal is the engine's own, word for word."""
    recorded = RECORDED[name]

    _, _, text = asked(port, recorded)

    assert json.loads(recorded["body"]) == json.loads(text)


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_too_long(name: str, port: int) -> None:
    """A prompt beyond the context is refused in the same words, but for its length."""
    recorded = RECORDED[name]
    long = [{"role": "user", "content": "x" * 4 * MIND.context}]
    request = recorded["request"] | {"messages": long}

    status, _, text = asked(port, recorded | {"request": request})

    error, wanted = json.loads(text)["error"], json.loads(recorded["body"])["error"]
    counted = error["message"].rpartition("value=")[2].rstrip(")")
    assert 400 == status
    assert wanted == error | {"message": error["message"].replace(counted, "4097")}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in WHOLE
        if RECORDED[name]["status"] == 200
        and RECORDED[name]["headers"].get("content-type") == "application/json"
    ],
)
def test_keys(name: str, port: int) -> None:
    """A whole answer has the keys of the real one, each and no other."""
    recorded = RECORDED[name]

    _, _, text = asked(port, recorded)

    assert keys(json.loads(recorded["body"])) == keys(json.loads(text))


@pytest.mark.parametrize(
    "name", ["chat, stream", "chat, stream with usage", "tools, choice named, stream"]
)
def test_chunks(name: str, port: int) -> None:
    """First, middle and last chunks of a stream have the keys of the real ones."""
    recorded = RECORDED[name]

    _, _, text = asked(port, recorded)

    ours, real = chunks(text), chunks(recorded["body"])
    last = -2 if name == "chat, stream with usage" else -1
    for place in {0, 1, last, -1}:
        assert keys(real[place]) == keys(ours[place])


def test_thinking_switched_off(port: int) -> None:
    """As vLLM's parser does, the stand-in then leaves all in the content and counts no thought."""
    recorded = RECORDED["chat, thinking switched off"]

    _, _, text = asked(port, recorded)

    for body in (json.loads(recorded["body"]), json.loads(text)):
        message = body["choices"][0]["message"]
        assert (None, True) == (message["reasoning"], bool(message["content"]))
        assert 0 == body["usage"]["completion_tokens_details"]["reasoning_tokens"]


def test_metrics(port: int) -> None:
    """Each metric the stand-in has is one of the engine's, with the same labels."""
    recorded = RECORDED["metrics"]

    _, _, text = asked(port, recorded)

    def named(body: str) -> set[str]:
        return {line.rpartition(" ")[0] for line in body.splitlines() if line[:1] != "#"}

    assert set() == named(text) - named(recorded["body"])


#: a run of the real vLLM whose model says what a script has for it
SCRIPTED: dict[str, Any] = {
    answer["name"]: answer
    for answer in json.loads((LOGS / "vllm-0.32.0-scripted.json").read_text(encoding="utf-8"))
}


def turn(recorded: Any, text: str) -> dict[str, Any]:
    """Return what an answer says about itself, whatever its words: streamed or whole."""
    if recorded["request"].get("stream"):
        found: dict[str, Any] = {}
        choices = [event["choices"][0] for event in chunks(text) if event["choices"]]
        for delta in (choice["delta"] for choice in choices):
            for key in ("content", "reasoning"):
                found[key] = found.get(key, "") + (delta.get(key) or "")
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    else:
        choices = json.loads(text)["choices"]
        found = choices[0]["message"]
        calls = found.get("tool_calls", [])
    return {
        "finish": choices[-1]["finish_reason"],
        "reasoning": bool(found["reasoning"]),
        "content": bool(found["content"]),
        "</think>": "</think>" in (found["content"] or ""),
        "ids": [call["id"] for call in calls if "id" in call],
        "names": [call["function"]["name"] for call in calls if "name" in call["function"]],
        "roles": {call.get("type") for call in calls if "id" in call},
    }


#: what the stand-in takes and does not do: these speak of a text that it does not have
UNHEEDED = (
    "stopped by a word",
    "thinking budget",
    "JSON wanted",
    "at the end of thinking",
    "API",
    "choice none",  # the script calls the tool even then, and vLLM drops it
)


@pytest.mark.parametrize(
    "name", [name for name in SCRIPTED if not any(word in name for word in UNHEEDED)]
)
def test_turns(name: str, port: int) -> None:
    """Where reasoning, content and calls go, and how an answer ends, is as the real vLLM has it."""
    recorded = SCRIPTED[name]

    status, _, text = asked(port, recorded)

    assert recorded["status"] == status
    if status == 200:
        assert turn(recorded, recorded["body"]) == turn(recorded, text)
    else:
        assert json.loads(recorded["body"]) == json.loads(text)
