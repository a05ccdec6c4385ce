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
    text = page(findings(load_catalog(), options.truth), rows=options.rows)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


def findings(catalog: Catalog, truth: Path | None = None) -> Findings:
    """Return what the page says; with *truth* only how the shipped parameters do on its rows."""
    logs, unasked = asked(read, read_measurements("memory", catalog.gpus, truth), catalog)
    rows, more = asked(question, read_measurements("throughput", catalog.gpus, truth), catalog)
    known, p = catalog.overhead, parameters(catalog)
    counted = [log for log in logs if log.tokens is not None]
    found = Findings(
        known=[
            *(_tokens(log, log.predicted(known).kv_tokens) for log in counted),
            *(_speed(q, q.predicted(p)) for q in rows),
        ],
        verdicts=[_verdict(log, log.predicted(known).verdict) for log in logs if _decides(log)],
        unasked=[unasked, more],
    )
    if truth is not None:
        return found
    found.verdicts.extend(
        Verdict(m.id, what, said, starts=True) for m, what, said in hybrid_rows(catalog)
    )
    found.weights.extend(weight_rows(catalog))
    for log in fit_memory.left_out(counted, known):
        found.unseen.append(_tokens(log.log, log.predicted))
        width = known.spreads["measured"].bytes / GIB
        bar = Bar("KV cache", f"±{width:.1f} GiB", log.log.measured.url)
        found.bars.append((bar, abs(log.missing) <= width))
    for row in fit_speed.left_out(rows, catalog):
        found.unseen.append(_speed(row.row, row.predicted))
        factor = catalog.speed.spreads[row.standing].factor
        if row.row.kind == "decode":
            bar = Bar(f"decode, {row.standing}", f"×÷ {factor:g}", row.row.measured.url)
            found.bars.append((bar, row.off <= factor))
    return found


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
    what = f"{m.gpus}×{m.gpu} {m.engine} TP{m.tp} DCP{m.dcp}, {q.load}"
    what += ", with a draft" if m.draft else ""
    return Pair(q.kind, m.id, m.url, what, q.value, predicted)


def _decides(log: Log) -> bool:
    return log.starts is not None


def _verdict(log: Log, said: str) -> Verdict:
    m = log.measured
    what = f"{m.cells['gpu_count']}×{m.cells['gpu']} TP{m.tp} at {m.cells['mem_fraction'] or '?'}"
    return Verdict(m.id, f"{what}: {m.cells['outcome']}", said, bool(log.starts))


if __name__ == "__main__":
    main()
