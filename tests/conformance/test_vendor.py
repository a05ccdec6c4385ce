"""The vendor suite: requests from a file, results that a run goes on from, and what they sum to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import run
from tests.conformance.endpoint import ARGV
from tests.contract.servers import stand_in

TOOL = {"type": "function", "function": {"name": "t", "parameters": {
    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}  # fmt: skip


def _line(text: str, **more: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}], **more})


#: two that call, two that don't, one with the role that verifiers invented
LINES = [
    _line("call", tools=[TOOL]),
    _line("call streamed", tools=[TOOL], stream=True),
    _line("say"),
    json.dumps(
        {"messages": [{"role": "_input", "content": "s"}, {"role": "user", "content": "x"}]}
    ),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The stand-in."""
    with stand_in(ARGV) as endpoint:
        yield f"http://127.0.0.1:{endpoint.port}"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A file of requests."""
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def _checks(out: str) -> dict[str, tuple[str, str]]:
    return {c["name"]: (c["outcome"], c["evidence"]) for c in json.loads(out)["checks"]}


def test_a_file_is_run_and_summed(engine: str, samples: Path) -> None:
    """All answered, all calls valid; results lie beside the samples, one a line."""
    done = run("verify", engine, "--suite", "vendor", str(samples), "--json")

    assert 0 == done.exit_code, done.stderr
    found = _checks(done.stdout)
    assert ("pass", "4 of 4 requests brought a message") == found["requests answered"]
    assert ("pass", "2 of 2 tool calls fit") == found["arguments fit"]
    assert "not-applicable" == found["trigger F1"][0]
    (kept,) = samples.parent.glob("samples.*.results.jsonl")
    rows = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert {1: "tool_calls", 2: "tool_calls", 3: "stop", 4: "stop"} == {
        row["data_index"]: row["finish_reason"] for row in rows
    }


def test_a_run_that_was_ended_goes_on(engine: str, samples: Path, tmp_path: Path) -> None:
    """What was answered is not asked again, also after a last line that was cut off."""
    kept = tmp_path / "r.jsonl"
    words = ("verify", engine, "--suite", "vendor", str(samples), "--results", str(kept), "--json")
    assert 0 == run(*words).exit_code
    first = kept.read_text("utf-8").splitlines()
    kept.write_text("\n".join(first[:2]) + "\n" + first[2][:20], encoding="utf-8")

    assert 0 == run(*words).exit_code

    after = kept.read_text("utf-8").splitlines()
    assert first[:2] == after[:2]
    assert 4 == len(after)
    assert {1, 2, 3, 4} == {json.loads(line)["data_index"] for line in after}


def test_trigger_f1_is_against_expected_results(engine: str, samples: Path, tmp_path: Path) -> None:
    """Two calls came; three were due, one of them among the two: precision 1/2, recall 1/3."""
    expected = tmp_path / "expected.jsonl"
    due = {1: "tool_calls", 2: "stop", 3: "tool_calls", 4: "tool_calls"}
    rows = [{"data_index": n, "finish_reason": f, "status": "success"} for n, f in due.items()]
    expected.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    words = ("verify", engine, "--suite", "vendor", str(samples), "--expected", str(expected))

    least = run(*words, "--least-f1", "0.73", "--json")
    enough = run(*words, "--least-f1", "0.4", "--json")

    assert (1, 0) == (least.exit_code, enough.exit_code)
    assert "0.400; precision 0.500, recall 0.333" in _checks(least.stdout)["trigger F1"][1]


def test_calls_that_do_not_fit_are_named(samples: Path) -> None:
    """With the line and what is wrong."""
    with stand_in(ARGV, "--misbehave", "loose-arguments") as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}"
        done = run("verify", url, "--suite", "vendor", str(samples), "--json")

    assert 1 == done.exit_code
    outcome, said = _checks(done.stdout)["arguments fit"]
    assert "fail" == outcome
    assert "0 of 2 tool calls fit (0.0%); line 1: at .n:" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "samples.jsonl:1: no JSON"),
        ("[]", "samples.jsonl:1: no chat completion request"),
        (_line("x") + "\n" + '{"messages": [7]}', "samples.jsonl:2: no chat completion request"),
        ("[" * 100_000, "samples.jsonl:1: no JSON"),
    ],
)
def test_lines_that_are_no_requests(engine: str, tmp_path: Path, text: str, said: str) -> None:
    """File and line, before anything is asked."""
    path = tmp_path / "samples.jsonl"
    path.write_text(text, encoding="utf-8")

    done = run("verify", engine, "--suite", "vendor", str(path))

    assert 2 == done.exit_code
    assert said in done.stderr
