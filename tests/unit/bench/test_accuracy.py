"""docs/accuracy.md is what the command says today, and says it honestly."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bench import accuracy, fit_memory, fit_speed
from bench.figures import Bar, Pair, Verdict
from bench.page import Findings, page
from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.resources import shipped

CATALOG = load_catalog()
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?")


@pytest.fixture(scope="module")
def left() -> accuracy.LeftOut:
    """Return every row as predicted without its source."""
    return accuracy.left_out(CATALOG)


def numbers(text: str) -> list[float]:
    """Return the numbers of a page, in their order."""
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def test_the_page_is_current(left: accuracy.LeftOut) -> None:
    """The page is `python -m bench.accuracy --write`, but for the last digit of a figure."""
    there = accuracy.PAGE.read_text(encoding="utf-8")
    here = page(accuracy.everything(CATALOG, left))

    assert _NUMBER.sub("#", there) == _NUMBER.sub("#", here)
    assert numbers(there) == pytest.approx(numbers(here), rel=1e-3, abs=0.3)


def test_bars_are_what_sources_left_out_say(left: accuracy.LeftOut) -> None:
    """The shipped error bars are those that writing the fits again would give."""
    speeds = fit_speed.spreads_of(left.speeds, CATALOG.speed.spreads)
    margins = fit_memory.margins_of(left.logs, CATALOG.overhead.spreads)

    assert speeds == CATALOG.speed.spreads
    assert margins == CATALOG.overhead.spreads


def test_bars_hold_four_of_five(left: accuracy.LeftOut) -> None:
    """Of the rows left out at least four of five lie inside their bars."""
    held = [inside for _, inside in accuracy.everything(CATALOG, left).bars]

    assert len(held) > 250
    assert sum(held) >= 0.8 * len(held)


def test_every_decision_is_right(left: accuracy.LeftOut) -> None:
    """Every launch that was logged as refused or running is predicted as such."""
    verdicts = accuracy.everything(CATALOG, left).verdicts

    assert [v.id for v in verdicts if not v.right] == []
    assert {v.starts for v in verdicts} == {True, False}


def test_other_rows_are_judged_as_shipped(tmp_path: Path) -> None:
    """Rows of another folder are predicted by the shipped parameters, and nothing is fitted."""
    for kind in ("memory", "throughput"):
        shutil.copy(shipped("profiles") / "measurements" / f"{kind}.csv", tmp_path)
    there = accuracy.findings(CATALOG, tmp_path)

    assert there == accuracy.findings(CATALOG)
    assert (there.unseen, there.bars, there.weights) == ([], [], [])
    assert "Left out one source" not in page(there)


def test_rows_kept_out_of_every_fit(left: accuracy.LeftOut) -> None:
    """They are predicted and shown, are none of the fitted ones, and move no bar."""
    pairs, why = accuracy.unfitted(CATALOG)
    whole = accuracy.everything(CATALOG, left)
    fitted = {m.id for m in CATALOG.measurements}

    assert len(pairs) > 10
    assert sum(why.values()) > 0
    assert fitted.isdisjoint(pair.id for pair in pairs)
    assert {pair.source for pair in whole.unseen}.isdisjoint(pair.source for pair in pairs)
    assert f"{len(pairs)} rows: median error" in page(whole)


def test_a_folder_without_rows(tmp_path: Path) -> None:
    """A folder that has no measurements is refused by name."""
    with pytest.raises(RequestError, match=r"memory\.csv can't be read"):
        accuracy.findings(CATALOG, tmp_path)


def made(*errors: float, kind: str = "decode", source: str = "https://a.org/x") -> list[Pair]:
    """Return pairs that are off by *errors*."""
    return [
        Pair(kind, f"T{n}", source, "8×h200 vllm TP8 DCP1", 100, 100 * (1 + error))
        for n, error in enumerate(errors)
    ]


def found(**parts: object) -> Findings:
    """Return findings with a little of everything, and *parts* instead of some."""
    whole: dict[str, object] = {
        "known": [*made(0.01), *made(0.01, kind="KV tokens")],
        "unseen": [*made(0.1, -0.2), *made(0.02, kind="KV tokens")],
        "verdicts": [Verdict("M1", "ran", "yes", starts=True)],
        "unasked": [Counter({"another model": 2})],
        "bars": [(Bar("decode, measured", "×÷ 1.4", "https://a.org/x"), True)],
    }
    return Findings(**(whole | parts))  # type: ignore[arg-type]


def test_a_missed_goal_is_said() -> None:
    """A median over the goal is called missed, and one beside it met, with both figures."""
    text = page(found(unseen=[*made(0.2, 0.2, 0.2), *made(0.02, kind="KV tokens")]))

    assert "- decode, median: 15% is missed (20.0%; 1.0% with all sources known)" in text
    assert "- decode, ninth decile: 40% is met (20.0%" in text
    assert "- KV tokens, median: 3% is met (2.0%" in text


def test_a_wrong_decision_is_said() -> None:
    """A launch predicted wrongly is listed as wrong, and the goal as missed."""
    text = page(found(verdicts=[Verdict("M9", "8×H200: OOM", "yes", starts=False)]))

    assert "- wrong: M9 8×H200: OOM; predicted: yes" in text
    assert "- every decision right: missed (0 of 1)" in text


def test_a_bar_that_does_not_hold_is_said() -> None:
    """The share inside the bar stands beside what it promises, with the sources it fails."""
    bar, other = (Bar("decode, measured", "×÷ 1.4", f"https://{x}.org/x") for x in "ab")
    text = page(found(bars=[(bar, True), (bar, True), (other, False), (other, True)]))

    assert "| decode, measured | ×÷ 1.4 | 4 | 3 | 75% |" in text
    assert "The bar holds 3 of 4 rows; it promises 80%." in text
    assert "- decode, measured: 1 of 2 rows of [b.org: x](https://b.org/x)" in text
    assert "a.org" not in text.partition("It holds fewer")[2].partition("##")[0]


def test_rows_are_listed_if_asked() -> None:
    """With --rows every row stands with its error; without, none does."""
    assert "T0           100.0        101.0   +1.0%  8×h200 vllm TP8 DCP1" in page(
        found(), rows=True
    )
    assert "Every row" not in page(found())
    assert "- 2 × another model" in page(found())
