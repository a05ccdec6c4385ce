"""Published rows as questions: what was served, the load, the speed, or why it is no question."""

from __future__ import annotations

import msgspec
import pytest

from bench.memory_rows import Log, read
from bench.rows import Question, question
from bench.weight_rows import weight_rows
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import Measurement, read_measurements
from kimideploy.planning.evidence import measurements_of
from kimideploy.planning.speed import parameters

CATALOG = load_catalog()
P = parameters(CATALOG)
SPEEDS = {m.id: m for m in CATALOG.measurements}
MEMORY = {m.id: m for m in read_measurements("memory", CATALOG.gpus)}


def asked(m: Measurement) -> Question:
    """Return the question a row is; a reason fails the test."""
    found = question(m, CATALOG)
    assert isinstance(found, Question), found
    return found


def changed(m: Measurement, **cells: str) -> Measurement:
    """Return the row with other cells."""
    return msgspec.structs.replace(m, cells={**m.cells, **cells})


def logged(m: Measurement) -> Log:
    """Return the launch a row is; a reason fails the test."""
    found = read(m, CATALOG)
    assert isinstance(found, Log), found
    return found


def test_speed_of_one_user() -> None:
    """A row of one user is asked for that user's speed at its context."""
    found = asked(SPEEDS["T541"])

    assert (found.kind, found.value) == ("decode", 27)
    assert found.load == "1 users at 200,000 tokens"


def test_total_is_shared_by_the_users() -> None:
    """A row that states a total only is asked for a user's share of it."""
    row = changed(SPEEDS["T557"], output_tok_s_per_user="", output_tok_s="900")

    assert asked(row).value == 9


def test_time_per_token_is_a_speed() -> None:
    """A row with lengths and milliseconds a token is asked for their inverse, fed its prompts."""
    lengths = {"input_len": "8000", "output_len": "1000", "concurrency": "16"}
    row = changed(SPEEDS["T541"], **lengths, output_tok_s_per_user="", mean_tpot_ms="50")
    alone = changed(row, concurrency="1")

    assert asked(row).value == 20
    assert asked(row).load == "16 users at 8,500 tokens"
    assert asked(row).predicted(P) < asked(alone).predicted(P)


def test_prefill_of_the_hybrid_engine() -> None:
    """A row of the hybrid engine is asked how fast it reads the prompt it was given."""
    found = asked(SPEEDS["T047"])

    assert (found.kind, found.value) == ("prefill", 1055)
    assert found.predicted(P) == pytest.approx(1055, rel=0.3)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("T001", "Kimi-K2-Instruct is another model"),
        ("T048", "confidence C"),
        ("T034", "experts on the GPUs and CPUs are not stated"),
    ],
)
def test_rows_that_can_not_be_asked(row: str, reason: str) -> None:
    """A row that leaves out what the model needs is named with the reason."""
    found = question(SPEEDS[row], CATALOG)

    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"concurrency": ""}, "no concurrency stated"),
        ({"concurrency": "64 (peak)"}, "a queue that never empties"),
        ({"output_tok_s": "", "output_tok_s_per_user": ""}, "no speed of one user stated"),
        ({"other": "a known defect"}, "the engine was at fault"),
    ],
)
def test_what_is_missing_is_said(cells: dict[str, str], reason: str) -> None:
    """Without a load or a speed a row is no question, and the reason says which."""
    found = question(changed(SPEEDS["T541"], **cells), CATALOG)

    assert isinstance(found, str)
    assert reason in found


def test_evidence_is_what_was_asked() -> None:
    """What a plan calls its evidence are the rows that the model was fitted to, no more or less."""
    here = {(m.id, kind) for kind, rows in measurements_of(CATALOG).items() for m in rows}
    there = [question(m, CATALOG) for m in CATALOG.measurements]

    assert here == {(q.measured.id, q.kind) for q in there if isinstance(q, Question)}
    assert len(here) > 250


def test_a_launch_as_it_was_logged() -> None:
    """A startup log is read with its layout, cache and settings, and its tokens are the truth."""
    found = logged(MEMORY["M002"])

    assert found.tokens == 5_721_088
    assert (found.subject.layout.tp, found.subject.layout.dcp) == (8, 8)
    assert [settings.fraction for settings in found.settings] == [0.9]
    assert found.settings[0].sequences == 1024
    assert not found.settings[0].estimated


@pytest.mark.parametrize(
    ("note", "estimated", "captured"),
    [
        ("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1", True, None),
        ("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0", False, None),
        ("estimator off, capture size 128", False, 128),
        ("graph estimator on", True, None),
    ],
)
def test_graphs_are_set_aside_as_said(note: str, estimated: bool, captured: int | None) -> None:
    """Whether the estimator ran, and up to which batch graphs were captured, is in the note."""
    (settings,) = logged(changed(MEMORY["M002"], cudagraph_note=note)).settings

    assert (settings.estimated, settings.captured) == (estimated, captured)


@pytest.mark.parametrize(
    ("outcome", "starts"),
    [
        ("ok", True),
        ("OOM at first request", False),
        ("refused: No available memory", False),
        ("stale log", None),
        ("slow", None),
    ],
)
def test_outcomes(outcome: str, starts: bool | None) -> None:
    """Only a clear outcome is a decision to be judged by."""
    assert starts == logged(changed(MEMORY["M002"], outcome=outcome)).starts


def test_weights_are_calculated() -> None:
    """Whole checkpoints are within half a percent of what was published."""
    rows = {row.id: row for row in weight_rows(CATALOG)}

    assert len(rows) == 5
    assert [row.id for row in rows.values() if abs(row.error) > 0.005] == []
