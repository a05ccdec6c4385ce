"""The scripted Kimi on the real engines: they say what is written, and what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judges import SERVERS
from tests.judges.record import EAGER, RUNS, SPEAKS, Case, ask, serving
from tests.judges.scripted import SCRIPTS, Script, book, safetensors, tensors, write_scripted
from tests.judges.scripted_gguf import write_gguf

LOGS = Path(__file__).resolve().parent / "logs"
TOKENS = {case.name: case for case in SPEAKS}


@pytest.fixture(scope="module", params=["llamacpp", "scripted"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """Return a real engine that serves the scripted model, and its port."""
    run = EAGER if request.param == "scripted" else RUNS[request.param]
    server = SERVERS[run.engine]
    server.build()
    with serving(run, server.bin_dir, tmp_path_factory.mktemp("engine")) as served:
        yield request.param, served.port


def message(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer says, streamed or whole, without ids, clocks and counts."""
    body = answer["body"]
    if not str(answer["headers"].get("content-type")).startswith("text/event-stream"):
        return whole(answer["status"], json.loads(body))
    said: dict[str, Any] = {"status": answer["status"], "calls": {}}
    for line in body.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            add(said, choice)
    return said


def whole(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return what one JSON answer says."""
    if "choices" not in body:
        return {"status": status, "error": body.get("error")}
    (choice,) = body["choices"]
    told = choice["message"]
    return {
        "status": status,
        "content": told.get("content"),
        "reasoning": told.get("reasoning") or told.get("reasoning_content"),
        "calls": {call["id"]: call["function"] for call in told.get("tool_calls") or ()},
        "finish_reason": choice["finish_reason"],
    }


def add(said: dict[str, Any], choice: dict[str, Any]) -> None:
    """Add one chunk of a stream to what was said."""
    delta = choice["delta"]
    for name in ("content", "reasoning", "reasoning_content"):
        if delta.get(name):
            said[name] = said.get(name, "") + delta[name]
    for call in delta.get("tool_calls") or ():
        kept = said["calls"].setdefault(call["index"], {"arguments": ""})
        kept["arguments"] += call["function"].get("arguments") or ""
        kept |= {key: call[key] for key in ("id",) if call.get(key)}
    if choice["finish_reason"]:
        said["finish_reason"] = choice["finish_reason"]


CHATS = tuple(case for case in SPEAKS if case.path == "/v1/chat/completions")


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.name)
def test_the_engine_still_says_what_was_recorded(engine: tuple[str, int], case: Case) -> None:
    """The recording that others are held against is what the engine answers today."""
    run, port = engine
    recorded = json.loads((LOGS / RUNS[run].answers).read_text("utf-8"))
    (kept,) = (one for one in recorded if one["name"] == case.name)
    assert message(kept) == message(ask(port, case))


def test_the_reasoning_of_earlier_turns_reaches_the_model(engine: tuple[str, int]) -> None:
    """A history whose reasoning was dropped is answered differently: a client's loss is seen."""
    _, port = engine
    kept = message(ask(port, TOKENS["after the tool, reasoning_content kept"]))
    lost = message(ask(port, TOKENS["after the tool, reasoning dropped"]))
    assert kept["content"] == SCRIPTS[1].content
    assert lost["content"] == SCRIPTS[0].content


def test_a_word_is_in_one_place_only() -> None:
    """No word is said twice, in one script or in two: each has exactly one successor."""
    tokens = book(SCRIPTS)
    assert len(set(tokens.words)) == len(tokens.words)
    for script, said in zip(SCRIPTS, tokens.said, strict=True):
        assert "".join(said) == script.text()


def test_a_repeated_word_is_joined_to_its_neighbour() -> None:
    """Scripts that share words are cut elsewhere, and still spell the same text."""
    scripts = (Script("tools", "ring a ring", "a ring"), Script("true", "a ring a ring", "ring it"))
    tokens = book(scripts)
    assert ["".join(said) for said in tokens.said] == [script.text() for script in scripts]
    assert len(set(tokens.words)) == len(tokens.words)


def test_scripts_that_nothing_tells_apart_are_refused() -> None:
    """The same answer twice can't be cut into words of its own."""
    with pytest.raises(ValueError, match="can't be told from"):
        book((Script("tools", "Yes."), Script("true", "Yes.")))


def test_the_files_are_the_same_every_time(tmp_path: Path) -> None:
    """Two writes differ in no byte, in either format."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_scripted(folder)
        write_gguf(folder / "model.gguf")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / name).read_bytes() for name in names] == [
        (tmp_path / "b" / name).read_bytes() for name in names
    ]


def test_the_safetensors_header_covers_the_file() -> None:
    """The header's offsets tile the data exactly, as every loader demands."""
    data = safetensors(tensors(book(SCRIPTS)))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"]
    spans = sorted(one["data_offsets"] for one in header.values())
    assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(data) - 8 - size]
