"""The fits: a source left out is left out, the error bars follow, and the profiles are theirs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bench import fit_memory, fit_speed
from bench.memory_rows import Log, logs
from bench.rows import Question, questions
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import read_measurements
from kimideploy.planning.evidence import Standing
from kimideploy.planning.speed import parameters
from kimideploy.quantities import GIB, Bytes

CATALOG = load_catalog()
P = parameters(CATALOG)
KNOWN = CATALOG.speed.parameters
QUESTIONS = questions(CATALOG.measurements, CATALOG)
LOGS = [
    log
    for log in logs(read_measurements("memory", CATALOG.gpus), CATALOG)
    if log.tokens is not None
]


def some(rows: Sequence[Question]) -> list[Question]:
    """Return a few rows of each source."""
    kept: dict[str, list[Question]] = {}
    for row in rows:
        kept.setdefault(row.measured.url, []).append(row)
    return [row for own in kept.values() for row in own[:: 1 + len(own) // 6]]


def test_every_row_of_a_source_is_left_out() -> None:
    """What a source measured has no say in how it is predicted, and each row is predicted once."""
    rows = some(QUESTIONS)
    source = rows[-1].measured.url
    tripled = [
        replace(row, value=row.value * 3) if row.measured.url == source else row for row in rows
    ]
    before, after = (fit_speed.left_out(part, CATALOG) for part in (rows, tripled))

    def of(found: list[fit_speed.Unseen], own: bool) -> dict[str, float]:
        return {
            f"{x.row.measured.id} {x.row.kind}": x.predicted
            for x in found
            if (x.row.measured.url == source) == own
        }

    assert of(before, own=True) == of(after, own=True)
    assert of(before, own=False).keys() == of(after, own=False).keys()
    assert of(before, own=False) != of(after, own=False)
    assert len(before) == len(rows)


def test_every_log_of_a_source_is_left_out() -> None:
    """A log has no say in what its own page is predicted to hold, only in the others."""
    source = LOGS[0].measured.url
    doubled = [
        replace(log, tokens=int((log.tokens or 0) * 1.05)) if log.measured.url == source else log
        for log in LOGS
    ]
    before, after = (fit_memory.left_out(rows, CATALOG.overhead) for rows in (LOGS, doubled))

    own = [x.log.measured.url == source for x in before]
    assert [x.log.measured.id for x in before] == [x.log.measured.id for x in after]
    assert [x.predicted for x, mine in zip(before, own, strict=True) if mine] == [
        x.predicted for x, mine in zip(after, own, strict=True) if mine
    ]
    assert sum(own) < len(own) == len(LOGS)


def test_standing_is_of_what_was_known() -> None:
    """Without the one lab that had a card, that card was not measured."""
    found = {
        (x.row.measured.gpu, x.row.measured.engine): x.standing
        for x in fit_speed.left_out(some(QUESTIONS), CATALOG)
    }

    assert found["mi300x", "vllm"] == "scaled"
    assert found["h200", "sglang"] == "generation"
    assert found["rtx-pro-6000", "vllm"] == "measured"


def test_a_fit_finds_what_made_the_rows() -> None:
    """Rows that a faster floor of latency made are fitted by a lower latency."""
    faster = {**P, "latency": P["latency"] * 0.7}
    made = [replace(row, value=row.predicted(faster)) for row in some(QUESTIONS)]
    values = fit_speed.fit(made, KNOWN)

    def off(p: dict[str, float]) -> float:
        return max(abs(math.log(row.predicted(p) / row.value)) for row in made)

    assert values["latency"] < P["latency"] * 0.85
    assert off(values) < off(P) * 0.6


def test_without_rows_a_fit_is_its_priors() -> None:
    """Parameters that nothing was measured about stay what physics says."""
    values = fit_speed.fit([], KNOWN)

    assert values == pytest.approx({name: entry.prior for name, entry in KNOWN.items()})


@pytest.fixture(scope="module")
def speeds() -> dict[str, float]:
    """Return a fit to all rows."""
    return fit_speed.fit(QUESTIONS, KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_speed_yaml_is_what_the_fit_gives(speeds: dict[str, float], name: str) -> None:
    """The shipped parameters are those of `python -m bench.fit_speed --write`."""
    assert KNOWN[name].value == pytest.approx(speeds[name], rel=0.02)


@pytest.fixture(scope="module")
def overheads() -> dict[str, float]:
    """Return a fit to all logs."""
    found = fit_memory.fit(LOGS, CATALOG.overhead)
    return {name: entry.value for name, entry in found.parameters.items()}


@pytest.mark.parametrize("name", sorted(CATALOG.overhead.parameters))
def test_overhead_yaml_is_what_the_fit_gives(overheads: dict[str, float], name: str) -> None:
    """The shipped parameters are those of `python -m bench.fit_memory --write`."""
    assert CATALOG.overhead.parameters[name].value == pytest.approx(overheads[name], rel=0.02)


def unseen(standing: Standing, *factors: float) -> list[fit_speed.Unseen]:
    """Return decode rows that were predicted off by *factors*."""
    row = next(row for row in QUESTIONS if row.kind == "decode")
    return [fit_speed.Unseen(row, row.value * factor, standing) for factor in factors]


def test_bar_of_speed_follows_its_rows() -> None:
    """The measured bar is what four of five unseen rows need, too fast or too slow, rounded up."""
    rows = unseen("measured", 1.0, 1.1, 1 / 1.21, 1.2, 1 / 1.05, 1.01, 1.02, 1.03, 3.0)
    found = fit_speed.spreads_of(rows, CATALOG.speed.spreads)

    assert found["measured"].factor == 1.25


def test_bars_of_few_rows_are_never_narrower() -> None:
    """A lucky lab narrows no bar of its neighbours; an unlucky one widens theirs and the next."""
    known = CATALOG.speed.spreads
    lucky = fit_speed.spreads_of(unseen("generation", 1.0, 1.0), known)
    unlucky = fit_speed.spreads_of(unseen("generation", 1.9, 2.0), known)

    assert lucky["generation"].factor == known["generation"].factor
    assert unlucky["generation"].factor == unlucky["scaled"].factor == 2.0
    assert unlucky["guess"].factor == known["guess"].factor


def test_margin_of_memory_follows_its_logs() -> None:
    """The margin is what four of five unseen logs need, and twice that where nobody logged."""
    off = (0.1, -0.2, 0.3, -0.4, 1.31)
    found = fit_memory.margins_of(
        [fit_memory.Unseen(LOGS[0], 0, missing) for missing in off], CATALOG.overhead.spreads
    )

    assert found["measured"].bytes / GIB == pytest.approx(1.4)
    assert found["other"].bytes == 2 * found["measured"].bytes
    assert isinstance(found["other"].bytes, Bytes)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Return a copy of speed.yaml that can be written to."""
    return Path(shutil.copy(fit_speed.PROFILE, tmp_path))


def test_a_fit_is_written_back(profile: Path) -> None:
    """Values are written to three digits and called fitted; a prior nothing moved is not."""
    moved = msgspec.structs.replace(KNOWN["experts"], value=0.87654)
    still = msgspec.structs.replace(KNOWN["alike"], value=KNOWN["alike"].prior * 1.0001)
    fit_speed.rewrite(profile, {"experts": moved, "alike": still})
    found = load_catalog([profile.parent]).speed.parameters

    assert (found["experts"].value, found["experts"].fitted) == (0.877, True)
    assert (found["alike"].value, found["alike"].fitted) == (KNOWN["alike"].prior, False)
    assert {**found, "experts": 0, "alike": 0} == {**KNOWN, "experts": 0, "alike": 0}


def test_bars_are_written_back(profile: Path) -> None:
    """Only the width changes, and only of the spread that is named."""
    before = profile.read_text(encoding="utf-8")
    fit_speed.rewrite_spreads(profile, {"scaled": "factor: 1.95"})
    old = CATALOG.speed.spreads
    new = load_catalog([profile.parent]).speed.spreads

    assert new == {**old, "scaled": msgspec.structs.replace(old["scaled"], factor=1.95)}
    here = profile.read_text(encoding="utf-8")
    assert here.replace("1.95", f"{old['scaled'].factor:g}") == before


def test_a_bar_that_can_not_be_written_is_an_error(profile: Path) -> None:
    """A spread that the file does not have is no success."""
    with pytest.raises(AssertionError, match="0 lines for the spread gess"):
        fit_speed.rewrite_spreads(profile, {"gess": "factor: 2"})


def test_logs_are_about_the_cache() -> None:
    """What is missing is told in GiB of one card, whatever the cache is spread over."""
    log: Log = next(log for log in LOGS if log.subject.layout.dcp == 8)
    fit = log.predicted(CATALOG.overhead)
    short = replace(log, tokens=fit.kv_tokens - GIB // fit.kv_bytes_per_token)

    assert fit_memory.missing(short, CATALOG.overhead) == pytest.approx(1, rel=1e-3)
