"""Real engines and real tokens: the nano Kimi keeps every promise, and a missing flag is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.servers import FLAGS, Endpoint, real_llama, real_vllm
from tests.guard.door import door
from tests.middleware.runs import python

#: what can't be told of a small model that is fast, and of one without a key
SPARED = {"key is asked for", "key is not told", "the stream flows"}
LIMIT = 300


def verified(url: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and verdict of `kimideploy verify`."""
    argv = [sys.executable, "-m", "kimideploy", "verify", url, "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def kept_all(verdict: dict[str, Any]) -> bool:
    """Whether nothing is broken, and no more is spared than must be."""
    outcomes = {check["name"]: check["outcome"] for check in verdict["checks"]}
    assert [] == [check for check in verdict["checks"] if check["outcome"] == "fail"]
    assert {name for name, outcome in outcomes.items() if outcome != "pass"} <= SPARED
    return bool(verdict["ok"])


@pytest.mark.parametrize("seed", ["1", "2"])
def test_vllm_keeps_every_promise(real: Endpoint, seed: str) -> None:
    """The real vLLM with the real parsers, on tokens the model has made, at its own sampling."""
    code, verdict = verified(f"http://127.0.0.1:{real.port}", "--suite", "full", "--seed", seed)

    assert 0 == code
    assert kept_all(verdict)
    assert 1.0 == verdict["score"]
    assert verdict["speed"]["rate_p50"] > 0


def test_vllm_behind_the_guard_keeps_every_promise(real: Endpoint) -> None:
    """The guard finds out by itself which field vLLM uses, and breaks nothing."""
    with door(f"http://127.0.0.1:{real.port}", "--missing", "repair") as found:
        code, verdict = verified(found.url, "--suite", "full")

    assert 0 == code
    assert kept_all(verdict)


def test_anthropics_client_gets_an_answer(real: Endpoint) -> None:
    """Claude Code's way in: the anthropic package on vLLM's own /v1/messages, thoughts and all."""
    program = (
        "import anthropic, sys\n"
        "client = anthropic.Anthropic(base_url=sys.argv[1], api_key='none', timeout=60)\n"
        "answer = client.messages.create(model='kimi-k2.7-code', max_tokens=2048, messages=["
        "{'role': 'user', 'content': 'What is 17 times 23?'}])\n"
        "print([block.type for block in answer.content], answer.content[-1].text)\n"
    )
    done = subprocess.run(
        [python(), "-c", program, f"http://127.0.0.1:{real.port}"],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "['thinking', 'text'] 391" == done.stdout.strip()


def test_llama_server_keeps_every_promise(tmp_path: Path) -> None:
    """The same weights as a GGUF, on the real llama-server with its own parsers."""
    with real_llama(tmp_path) as endpoint:
        code, verdict = verified(f"http://127.0.0.1:{endpoint.port}", "--suite", "full")

    assert 0 == code
    assert kept_all(verdict)
    weight = next(check for check in verdict["checks"] if check["name"] == "reasoning")
    assert "message.reasoning_content" in weight["evidence"]


def test_vllm_without_its_flags_is_told_which(tmp_path: Path) -> None:
    """Neither --reasoning-parser nor --enable-auto-tool-choice: both are named as the cause."""
    at = FLAGS.index("--reasoning-parser")
    flags = [
        word for word in (*FLAGS[:at], *FLAGS[at + 2 :]) if word != "--enable-auto-tool-choice"
    ]
    with real_vllm(tmp_path, flags) as endpoint:
        code, verdict = verified(f"http://127.0.0.1:{endpoint.port}", "--suite", "full")

    assert 1 == code
    failed = {c["name"]: c for c in verdict["checks"] if c["outcome"] == "fail"}
    assert "the reasoning parser is not set" in failed["reasoning"]["cause"]
    assert "--reasoning-parser kimi_k2" in failed["reasoning"]["fix"]
    assert "thoughts came as answer" in failed["content is clean"]["cause"]
    for name in ("tool call", "tool id", "parallel calls"):
        assert "without --enable-auto-tool-choice" in failed[name]["cause"]
        assert "--enable-auto-tool-choice" in failed[name]["fix"]
