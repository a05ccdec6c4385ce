"""The client snippet: a program, and one that keeps the reasoning."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kimideploy.conformance.snippet import snippet


class _Message(SimpleNamespace):
    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if not (exclude_none and v is None)}


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_the_second_question_carries_the_first_thoughts(
    field: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as it is, it sends the whole first answer back, the engine's own field in it."""
    asked: list[dict[str, Any]] = []

    def create(**request: Any) -> SimpleNamespace:
        asked.append({**request, "messages": list(request["messages"])})
        message = _Message(role="assistant", content="391", **{field: "so"}, refusal=None)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    made: list[dict[str, Any]] = []

    def client(**words: Any) -> SimpleNamespace:
        made.append(words)
        return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))

    module = ModuleType("openai")
    module.OpenAI = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openai", module)

    text = snippet("http://127.0.0.1:8000", "kimi", field, max_tokens=32768, needs_key=False)
    exec(compile(text, "client.py", "exec"), {})

    assert {"role": "assistant", "content": "391", field: "so"} == asked[1]["messages"][1]
    assert [("kimi", 32768)] * 2 == [(a["model"], a["max_tokens"]) for a in asked]
    assert [{"base_url": "http://127.0.0.1:8000/v1", "api_key": "none"}] == made
    assert "so" in capsys.readouterr().out


def test_a_key_is_taken_from_the_environment() -> None:
    """A key is never printed, so the program has to find it."""
    text = snippet("http://127.0.0.1:8000", "kimi", "reasoning", max_tokens=1, needs_key=True)

    compile(text, "client.py", "exec")
    assert 'os.environ["API_KEY"]' in text
