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
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bench import fit_memory, fit_speed
from bench.figures import Bar, Pair, Verdict
from bench.memory_rows import Log, hybrid_rows, read
from bench.page import Findings, page
from bench.rows import Question, question
from bench.weight_rows import weight_rows
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import Measurement, read_measurements
from kimideploy.catalog.types import Catalog
from kimideploy.errors import RequestError
from kimideploy.planning.speed import parameters
from kimideploy.quantities import GIB

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
T = TypeVar("T")


def main() -> None:
    """Print, and perhaps write, the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    parser.add_argument("--rows", action="store_true", help="print every row")
    what.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    what.add_argument("--truth", type=Path, metavar="DIR", help="judge by the rows of DIR")
    options = parser.parse_args()
    catalog = load_catalog()
    try:
        found = findings(catalog, options.truth) if options.truth else everything(catalog)
    except RequestError as error:
        parser.error(error.message)
    text = page(found, rows=options.rows)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Every row as it is predicted without its source."""

    logs: list[fit_memory.Unseen]
    speeds: list[fit_speed.Unseen]


def left_out(catalog: Catalog) -> LeftOut:
    """Fit once without each source, and predict that source; takes some fifteen seconds."""
    logs, _ = asked(read, read_measurements("memory", catalog.gpus), catalog)
    rows, _ = asked(question, catalog.measurements, catalog)
    counted = [log for log in logs if log.tokens is not None]
    return LeftOut(
        fit_memory.left_out(counted, catalog.overhead), fit_speed.left_out(rows, catalog)
    )


def everything(catalog: Catalog, left: LeftOut | None = None) -> Findings:
    """Return what docs/accuracy.md says; *left* is `left_out(catalog)` if it is at hand."""
    found = findings(catalog)
    left = left if left is not None else left_out(catalog)
    found.verdicts.extend(
        Verdict(m.id, what, said, starts=True) for m, what, said in hybrid_rows(catalog)
    )
    found.weights.extend(weight_rows(catalog))
    fresh, why = unfitted(catalog)
    found.unfitted.extend(fresh)
    found.unasked.append(why)
    for log in left.logs:
        found.unseen.append(_tokens(log.log, log.predicted))
        width = catalog.overhead.spreads["measured"].bytes / GIB
        bar = Bar("KV cache", f"±{width:.1f} GiB", log.log.measured.url)
        found.bars.append((bar, abs(log.missing) <= width))
    for row in left.speeds:
        found.unseen.append(_speed(row.row, row.predicted))
        factor = catalog.speed.spreads[row.standing].factor
        if row.row.kind == "decode":
            bar = Bar(f"decode, {row.standing}", f"×÷ {factor:g}", row.row.measured.url)
            found.bars.append((bar, row.off <= factor))
    return found


def unfitted(catalog: Catalog) -> tuple[list[Pair], Counter[str]]:
    """Return the rows that no parameter was fitted to, and how many could not be asked, and why."""
    rows, why = asked(question, catalog.unfitted, catalog)
    pairs = [_speed(q, q.predicted(parameters(catalog))) for q in rows]
    return [
        replace(pair, what=f"{pair.what}; {q.measured.cells['engine_version']}")
        for pair, q in zip(pairs, rows, strict=True)
    ], why


def findings(catalog: Catalog, truth: Path | None = None) -> Findings:
    """Return how the shipped parameters do on the rows of *truth*, or on those shipped.

    Raises RequestError for a folder whose rows can't be read.
    """
    logs, unasked = asked(read, read_measurements("memory", catalog.gpus, truth), catalog)
    rows, more = asked(question, read_measurements("throughput", catalog.gpus, truth), catalog)
    known, p = catalog.overhead, parameters(catalog)
    return Findings(
        known=[
            *(_tokens(x, x.predicted(known).kv_tokens) for x in logs if x.tokens is not None),
            *(_speed(q, q.predicted(p)) for q in rows),
        ],
        verdicts=[_verdict(x, x.predicted(known).verdict) for x in logs if x.starts is not None],
        unasked=[unasked, more],
    )


def asked(
    reader: Callable[[Measurement, Catalog], T | str],
    rows: Iterable[Measurement],
    catalog: Catalog,
) -> tuple[list[T], Counter[str]]:
    """Return what *reader* makes of *rows*, and how many it refuses for which reason."""
    found: list[T] = []
    why = Counter[str]()
    for m in rows:
        outcome = reader(m, catalog)
        if isinstance(outcome, str):
            why[outcome] += 1
        else:
            found.append(outcome)
    return found, why


def _tokens(log: Log, predicted: int) -> Pair:
    m = log.measured
    what = f"{m.gpus}×{m.gpu} {m.engine} TP{m.tp} DCP{m.dcp} KV {m.kv_dtype}"
    what += " with a draft" if m.draft else ""
    return Pair("KV tokens", m.id, m.url, what, float(log.tokens or 0), float(predicted))


def _speed(q: Question, predicted: float) -> Pair:
    m = q.measured
    what = f"{m.gpus}×{m.gpu} {m.engine} TP{m.tp} DCP{m.dcp}, {m.format}, {q.load}"
    what += ", with a draft" if m.draft else ""
    return Pair(q.kind, m.id, m.url, what, q.value, predicted)


def _verdict(log: Log, said: str) -> Verdict:
    m = log.measured
    what = f"{m.cells['gpu_count']}×{m.cells['gpu']} TP{m.tp} at {m.cells['mem_fraction'] or '?'}"
    return Verdict(m.id, f"{what}: {m.cells['outcome']}", said, bool(log.starts))


if __name__ == "__main__":
    main()
