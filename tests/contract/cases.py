"""What a client may rely on: requests, and what any engine must answer to them.

One list, asked of the stand-in and of the real vLLM. Statuses are exact; bodies are compared by
their keys: what a model says is its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

MODEL = "kimi-k2.7-code"
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run Python code.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}
CALLED = {
    "role": "assistant",
    "content": "",
    "reasoning_content": "I need the tool.",
    "tool_calls": [
        {
            "id": "functions.run_python:0",
            "type": "function",
            "function": {"name": "run_python", "arguments": '{"code": "1"}'},
        }
    ],
}
ANSWERED = {"role": "tool", "tool_call_id": "functions.run_python:0", "content": "1"}


def chat(**changes: Any) -> bytes:
    """Return the body of a small request with *changes*; None leaves a key out."""
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 8} | changes
    return json.dumps({k: v for k, v in body.items() if v is not None}).encode()


@dataclass(frozen=True)
class Case:
    """One request; `keys` are paths that must be in the answer, on the real engine too."""

    name: str
    method: str
    path: str
    status: int
    body: bytes | None = None
    kind: str = "application/json"
    keys: tuple[str, ...] = ()
    answers: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


WHOLE = (
    "id", "object", "created", "model", "usage.prompt_tokens", "usage.completion_tokens",
    "usage.total_tokens", "choices.0.index", "choices.0.finish_reason",
    "choices.0.message.role", "choices.0.message.content",
)  # fmt: skip
ERROR = ("error.message", "error.type", "error.param", "error.code")

CASES = (
    Case("health", "GET", "/health", 200),
    Case("models", "GET", "/v1/models", 200, keys=("data.0.id", "data.0.max_model_len")),
    Case("version", "GET", "/version", 200, keys=("version",)),
    Case("metrics", "GET", "/metrics", 200, answers="text/plain"),
    Case("a question", "POST", CHAT, 200, chat(), keys=WHOLE),
    Case("no limit named", "POST", CHAT, 200, chat(max_completion_tokens=6), keys=WHOLE),
    Case("parts", "POST", CHAT, 200,
         chat(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]),
         keys=WHOLE),
    Case("an unknown field", "POST", CHAT, 200, chat(nonsense=1), keys=WHOLE),
    Case("tools, auto", "POST", CHAT, 200, chat(tools=[TOOL], tool_choice="auto"), keys=WHOLE),
    Case("tools, none", "POST", CHAT, 200, chat(tools=[TOOL], tool_choice="none"), keys=WHOLE),
    Case("history with reasoning", "POST", CHAT, 200,
         chat(messages=[*HELLO, CALLED, ANSWERED], tools=[TOOL]), keys=WHOLE),
    Case("history without reasoning", "POST", CHAT, 200,
         chat(messages=[*HELLO, {**CALLED, "reasoning_content": None}, ANSWERED], tools=[TOOL]),
         keys=WHOLE),
    Case("an unknown model", "POST", CHAT, 404, chat(model="nope"), keys=ERROR),
    Case("half a JSON", "POST", CHAT, 400, b'{"model": ', keys=ERROR),
    Case("an array", "POST", CHAT, 400, b"[]", keys=ERROR),
    Case("no messages", "POST", CHAT, 400, chat(messages=None), keys=ERROR),
    Case("messages as text", "POST", CHAT, 400, chat(messages="hi"), keys=ERROR),
    Case("empty messages", "POST", CHAT, 400, chat(messages=[]), keys=ERROR),
    Case("too many tokens", "POST", CHAT, 400, chat(max_tokens=999_999), keys=ERROR),
    Case("no tokens", "POST", CHAT, 400, chat(max_tokens=0), keys=ERROR),
    Case("a long prompt", "POST", CHAT, 400,
         chat(messages=[{"role": "user", "content": "word " * 40_000}]), keys=ERROR),
    Case("cold temperature", "POST", CHAT, 400, chat(temperature=-1), keys=ERROR),
    Case("tools as text", "POST", CHAT, 400, chat(tools="x"), keys=ERROR),
    Case("a tool nobody offered", "POST", CHAT, 400,
         chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "zzz"}}),
         keys=ERROR),
    Case("a choice without tools", "POST", CHAT, 400, chat(tool_choice="auto"), keys=ERROR),
    Case("not called JSON", "POST", CHAT, 400, chat(), kind="text/plain", keys=ERROR),
    Case("no UTF-8", "POST", CHAT, 400, b'{"model": "\xff\xfe"}', keys=("detail",)),
    Case("the wrong method", "GET", CHAT, 405, keys=("detail",)),
    Case("an unknown path", "GET", "/nope", 404, keys=("detail",)),
)  # fmt: skip
