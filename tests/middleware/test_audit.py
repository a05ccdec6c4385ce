"""The command: what it refuses, and how it tells what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kimideploy.conformance.audit.compare import Step, history, request
from kimideploy.conformance.client import Client
from tests.contract.servers import free_port
from tests.middleware.runs import LIMIT

STEP = Step("I think so. ", "beside", (("functions.t:0", "t", '{"a":1}'),))


def _run(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kimideploy", "audit", *words],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--through", "http://127.0.0.1:1"], "must know where its upstream is"),
        (["--through", "http://127.0.0.1:1", "--", "true"], "are two audits"),
        (["--", "/nowhere/agent"], "can't be run"),
        (["--", "true"], "there was no loop to look at"),
        (["--timeout", "1", "--", "sleep", "30"], "did not end in 1 s"),
    ],
)
def test_what_can_not_be_audited(words: list[str], said: str) -> None:
    """One sentence, and no traceback."""
    code, out, err = _run(*words)

    assert code in (2, 3)
    assert "" == out
    assert said in err
    assert "Traceback" not in err


def test_a_proxy_that_is_not_there() -> None:
    """Who did not answer is told, and where its upstream should be."""
    port = free_port()
    code, _, err = _run("--port", str(port), "--through", f"http://127.0.0.1:{free_port()}")

    assert 2 == code
    assert "Connection refused" in err
    assert f"http://127.0.0.1:{port}/v1" in err


def test_it_waits_for_whoever_comes(tmp_path: Path) -> None:
    """Without a command it prints its address, and reports at Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-m", "kimideploy", "audit", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        url = process.stderr.readline().split()[0]
        tool = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}
        messages: list[object] = [{"role": "user", "content": "go"}]
        body = {"model": "kimi-k2.7-code", "messages": messages, "tools": [tool]}
        client = Client(url)
        message = client.post("/v1/chat/completions", body, timeout=10).json()["choices"][0]
        messages += [message["message"], {"role": "tool", "tool_call_id": "x", "content": "1"}]
        client.post("/v1/chat/completions", body, timeout=10)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

    report = json.loads(out)
    assert 2 == report["requests"]
    fates = {fate["field"]: fate["what"] for fate in report["fates"]}
    assert "kept" == fates["reasoning"]
    assert "changed" == fates["tool results"]


# --- comparing ---------------------------------------------------------------------------


def _fates(**changes: object) -> dict[str, str]:
    answer = {
        "role": "assistant",
        "content": "beside",
        "reasoning": STEP.reasoning,
        "tool_calls": [{"id": "functions.t:0", "function": {"name": "t", "arguments": '{"a":1}'}}],
    } | changes
    result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": ""}  # type: ignore[index]
    system = {"role": "system", "content": "s"}
    body = {"messages": [system, {"role": "user", "content": "u"}, answer, result]}
    return {fate.field: fate.what for fate in history([body], [STEP])}


def _call(**changes: str) -> list[object]:
    function = {"name": "t", "arguments": '{"a":1}'} | changes
    return [{"id": function.pop("id", "functions.t:0"), "function": function}]


@pytest.mark.parametrize(
    ("changes", "field", "what"),
    [
        ({}, "reasoning", "kept"),
        ({"reasoning": None}, "reasoning", "dropped"),
        ({"reasoning": "I think"}, "reasoning", "truncated"),
        ({"reasoning": "I think so."}, "reasoning", "changed"),
        ({"reasoning": "other"}, "reasoning", "changed"),
        ({"reasoning": None, "reasoning_content": STEP.reasoning}, "reasoning", "renamed"),
        ({"reasoning": None, "content": f"<think>{STEP.reasoning}</think>"}, "reasoning", "moved"),
        ({"content": None}, "content", "dropped"),
        ({"content": [{"type": "text", "text": "beside"}]}, "content", "kept"),
        ({"tool_calls": _call(id="call_1")}, "tool ids", "changed"),
        ({"tool_calls": _call(arguments='{"a": 1}')}, "arguments", "changed"),
        ({"tool_calls": _call(name="u")}, "arguments", "changed"),
        ({"tool_calls": _call() + _call()}, "tool_calls", "dropped"),
    ],
)
def test_a_fate_is_told(changes: dict[str, object], field: str, what: str) -> None:
    """Each thing that can happen to an answer on its way back has its word."""
    assert what == _fates(**changes)[field]


def test_system_prompts_move() -> None:
    """One that stands inside the history, and one that takes another role."""
    user, system = {"role": "user", "content": "u"}, {"role": "system", "content": "s"}
    moved = history([{"messages": [user, system]}], [])
    renamed = history([{"messages": [{**system, "role": "developer"}, user]}], [])

    assert [("system prompt", "moved")] == [(fate.field, fate.what) for fate in moved]
    assert [("system prompt", "renamed")] == [(fate.field, fate.what) for fate in renamed]


def test_fields_of_requests() -> None:
    """Kept, renamed, dropped, changed and added fields are told apart."""
    sent = {"model": "a", "top_k": 1, "max_tokens": 5, "seed": 1, "stop": ["x"]}
    arrived = {"model": "b", "max_completion_tokens": 5, "seed": 2, "stop": ["x"], "user": "me"}

    fates = {fate.field: fate.what for fate in request(sent, arrived)}

    assert {
        "top_k": "dropped", "max_tokens": "renamed", "seed": "changed", "stop": "kept",
        "user": "added",
    } == fates  # fmt: skip
