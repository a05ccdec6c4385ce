"""How right the planner is: predicted beside measured, for every published row that can be asked.

    python -m bench.accuracy                  print it
    python -m bench.accuracy --rows           and every row
    python -m bench.accuracy --write          and write docs/accuracy.md
    python -m bench.accuracy --truth DIR      judge by the memory.csv and throughput.csv of DIR,
                                              with the parameters as shipped

The honest figure is leave-one-source-out: each source is predicted by a model fitted without it.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import fit_memory, fit_speed
from bench.memory_rows import Log, hybrid_rows, read
from bench.rows import Question, question
from bench.weight_rows import weight_rows
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import read_measurements
from kimideploy.catalog.types import Catalog
from kimideploy.planning.speed import parameters

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
#: what was set out to be reached: median and ninth decile of the error
GOALS = {"KV tokens": (0.03, 0.08), "decode": (0.15, 0.40)}


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction beside its measurement; both in the unit of `kind`."""

    kind: str
    id: str
    source: str
    what: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a launch was predicted to start, and whether it did."""

    id: str
    what: str
    said: str
    starts: bool

    @property
    def right(self) -> bool:
        """Whether the prediction was right; tight counts as starting."""
        return (self.said != "no") == self.starts


def main() -> None:
    """Print, and perhaps write, the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--truth", type=Path, metavar="DIR", help="judge by the rows of DIR")
    options = parser.parse_args()
    catalog = load_catalog()
    page = report(catalog, options.truth, rows=options.rows)
    print(page)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")


def report(catalog: Catalog, truth: Path | None = None, *, rows: bool = False) -> str:
    """Return the page; with *truth* only how the shipped parameters do on its rows."""
    logs, unasked = _sorted(read, read_measurements("memory", catalog.gpus, truth), catalog)
    asked, more = _sorted(question, read_measurements("throughput", catalog.gpus, truth), catalog)
    known, p = catalog.overhead, parameters(catalog)
    counted = [log for log in logs if log.tokens is not None]
    tokens = [_tokens(log, log.predicted(known).kv_tokens) for log in counted]
    speeds = [_speed(q, q.predicted(p)) for q in asked]
    verdicts = [_verdict(log, log.predicted(known).verdict) for log in logs if _decides(log)]
    lines = [
        "# How right the planner is",
        "",
        "Made by `python -m bench.accuracy --write`; nothing here is typed by hand.",
        "Every published row that states enough to be asked was asked; the rest is listed below.",
        "",
    ]
    if truth is None:
        verdicts += [
            Verdict(m.id, what, said, starts=True) for m, what, said in hybrid_rows(catalog)
        ]
        lines += [
            "## Left out one source at a time",
            "",
            "Each source is predicted by a model fitted without it.",
            "",
            *_summary([*_memory_without(counted, catalog), *_speed_without(asked, catalog)]),
            "## All sources known",
            "",
        ]
    lines += _summary([*tokens, *speeds])
    lines += _decisions(verdicts)
    if truth is None:
        lines += _weights(catalog)
    lines += _groups(speeds)
    lines += _left_out(unasked, more)
    if rows:
        lines += ["## Every row", "", "```text"]
        lines += [
            f"{pair.id:5} {pair.measured:12,.1f} {pair.predicted:12,.1f} {pair.error:+7.1%}  "
            f"{pair.what}"
            for pair in (*tokens, *speeds)
        ]
        lines += ["```", ""]
    return "\n".join(lines)


def _sorted(reader: Callable, rows: Iterable, catalog: Catalog) -> tuple[list, Counter[str]]:  # type: ignore[type-arg]
    found, why = [], Counter[str]()
    for m in rows:
        outcome = reader(m, catalog)
        if isinstance(outcome, str):
            why[outcome] += 1
        else:
            found.append(outcome)
    return found, why


def _tokens(log: Log, predicted: float) -> Pair:
    m = log.measured
    what = f"{m.gpus}×{m.gpu} {m.engine} TP{m.tp} DCP{m.dcp} KV {m.kv_dtype}"
    what += " with a draft" if m.draft else ""
    return Pair("KV tokens", m.id, m.url, what, float(log.tokens or 0), predicted)


def _speed(q: Question, predicted: float) -> Pair:
    m = q.measured
    what = f"{m.gpus}×{m.gpu} {m.engine} TP{m.tp} DCP{m.dcp}, {q.load}"
    what += ", with a draft" if m.draft else ""
    return Pair(q.kind, m.id, m.url, what, q.value, predicted)


def _decides(log: Log) -> bool:
    return log.starts is not None


def _verdict(log: Log, said: str) -> Verdict:
    m = log.measured
    what = f"{m.cells['gpu_count']}×{m.cells['gpu']} TP{m.tp} at {m.cells['mem_fraction'] or '?'}"
    return Verdict(m.id, f"{what}: {m.cells['outcome']}", said, bool(log.starts))


def _memory_without(logs: Sequence[Log], catalog: Catalog) -> list[Pair]:
    pairs = []
    for source in dict.fromkeys(log.measured.url for log in logs):
        rest = [log for log in logs if log.measured.url != source]
        known = fit_memory.fit(rest, catalog.overhead)
        pairs += [
            _tokens(log, log.predicted(known).kv_tokens)
            for log in logs
            if log.measured.url == source
        ]
    return pairs


def _speed_without(asked: Sequence[Question], catalog: Catalog) -> list[Pair]:
    pairs = []
    for source in dict.fromkeys(q.measured.url for q in asked):
        rest = [q for q in asked if q.measured.url != source]
        p = fit_speed.fit(rest, catalog.speed.parameters)
        pairs += [_speed(q, q.predicted(p)) for q in asked if q.measured.url == source]
    return pairs


def _summary(pairs: Sequence[Pair]) -> list[str]:
    lines = [
        "| what | rows | sources | median error | 9 of 10 within | goal | bias |",
        "|---|--:|--:|--:|--:|---|--:|",
    ]
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        own = [pair for pair in pairs if pair.kind == kind]
        middle, most = errors(own)
        goal = "–"
        if kind in GOALS:
            aim = GOALS[kind]
            met = "met" if middle <= aim[0] and most <= aim[1] else "missed"
            goal = f"{aim[0]:.0%} / {aim[1]:.0%}: {met}"
        bias = statistics.median(pair.error for pair in own)
        sources = len({pair.source for pair in own})
        shown = f"{middle:.1%} | {most:.1%} | {goal} | {bias:+.1%}"
        lines.append(f"| {kind} | {len(own)} | {sources} | {shown} |")
    return [*lines, ""]


def errors(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the median and the ninth decile of the size of the errors."""
    sizes = sorted(abs(pair.error) for pair in pairs)
    return statistics.median(sizes), sizes[max(0, math.ceil(0.9 * len(sizes)) - 1)]


def _decisions(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    wrong = [v for v in verdicts if not v.right]
    said = f"{len(verdicts) - len(wrong)} of {len(verdicts)} launches were predicted rightly; "
    said += f"{sum(not v.starts for v in verdicts)} of them had been refused or ran out of memory."
    lines = ["## Does it start?", "", said, ""]
    lines += [f"- wrong: {v.id} {v.what}; predicted: {v.said}" for v in wrong]
    lines += [
        f"- {v.id} {v.what}; predicted: {v.said}" for v in verdicts if not v.starts and v.right
    ]
    return [*lines, ""]


def _weights(catalog: Catalog) -> list[str]:
    lines = [
        "## Weights",
        "",
        "| row | weights | published | calculated | error |",
        "|---|---|--:|--:|--:|",
    ]
    lines += [
        f"| {row.id} | {row.what} | {row.published / 1e9:,.1f} GB"
        f" | {row.calculated / 1e9:,.1f} GB | {row.calculated / row.published - 1:+.2%} |"
        for row in weight_rows(catalog)
    ]
    return [*lines, ""]


def _groups(pairs: Sequence[Pair]) -> list[str]:
    lines = [
        "## Speed by set-up",
        "",
        "| GPU, engine | rows | median error | 9 of 10 within | bias |",
        "|---|--:|--:|--:|--:|",
    ]
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(f"{pair.kind}: {pair.what.split(' TP')[0]}", []).append(pair)
    for name, own in sorted(groups.items()):
        middle, most = errors(own)
        bias = statistics.median(pair.error for pair in own)
        lines.append(f"| {name} | {len(own)} | {middle:.1%} | {most:.1%} | {bias:+.1%} |")
    return [*lines, ""]


def _left_out(*reasons: Counter[str]) -> list[str]:
    lines = ["## Rows that could not be asked", ""]
    for counter in reasons:
        lines += [f"- {count} × {why}" for why, count in counter.most_common()]
    return [*lines, ""]


if __name__ == "__main__":
    main()
