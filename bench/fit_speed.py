"""Fit the parameters of profiles/speed.yaml to the published speeds, and print the residuals.

    python -m bench.fit_speed            print what a fit gives
    python -m bench.fit_speed --write    and write it into profiles/speed.yaml

Least squares on the logarithm of speed, with a soft loss (a wrong row pulls little), every
parameter held to its prior as if the prior were a measurement of its width. A source counts as at
most 40 rows, whatever it printed, and a row of confidence B as half of one.

The error bars are written too. Each source is predicted by a model fitted without it, and each of
its rows is put to the standing (planning/evidence.py) that its set-up then had; the bar is the
factor that holds four of five of these, rounded up.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from scipy.optimize import least_squares

from bench.figures import bar
from bench.rows import Question, questions
from kimideploy.catalog.fitted import Parameter, Spread
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import Catalog
from kimideploy.planning.evidence import Standing, evidence

PROFILE = Path(__file__).parents[1] / "profiles" / "speed.yaml"
#: the scatter of one good measurement: runs of one lab differ by 4 %, labs by more
_NOISE = 0.1
_MOST = 40
#: error bars are rounded up to a multiple of this
_STEP = 0.05
_SOFT = 1.5
#: a logarithm that moved less was not moved by anything measured
_MOVED = 1e-3


def fit(rows: Sequence[Question], parameters: dict[str, Parameter]) -> dict[str, float]:
    """Return the values of all *parameters* that fit *rows* best."""
    names = list(parameters)
    prior = np.log([parameters[name].prior for name in names])
    width = np.array([parameters[name].width for name in names])
    sources = Counter(row.measured.url for row in rows)
    weights = [
        min(1.0, math.sqrt(_MOST / sources[row.measured.url]))
        * (1.0 if row.measured.confidence == "A" else 0.5)
        for row in rows
    ]

    def residuals(x: np.ndarray) -> np.ndarray:
        p = dict(zip(names, np.exp(x).tolist(), strict=True))
        off = [
            weight * math.log(row.predicted(p) / row.value) / _NOISE
            for row, weight in zip(rows, weights, strict=True)
        ]
        return np.concatenate([off, (x - prior) / width])

    found = least_squares(residuals, prior, loss="soft_l1", f_scale=_SOFT)
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Unseen:
    """A row as a model predicted it that knew nothing of the row's source."""

    row: Question
    predicted: float
    #: how near the rows the model did know came to this one
    standing: Standing

    @property
    def off(self) -> float:
        """The factor between prediction and measurement, at least 1."""
        return math.exp(abs(math.log(self.predicted / self.row.value)))


def left_out(rows: Sequence[Question], catalog: Catalog) -> list[Unseen]:
    """Return every row, predicted by a fit to the rows of the other sources."""
    found = []
    for source in dict.fromkeys(row.measured.url for row in rows):
        rest = [row for row in rows if row.measured.url != source]
        p = fit(rest, catalog.speed.parameters)
        for row in rows:
            m = row.measured
            if m.url == source and m.engine is not None and m.gpu is not None:
                like = [r.measured for r in rest if r.kind == row.kind]
                generation = catalog.gpus[m.gpu].generation
                near = evidence(m.gpu, m.engine, generation, like, catalog.gpus)
                found.append(Unseen(row, row.predicted(p), near.standing))
    return found


def spreads_of(unseen: Sequence[Unseen], known: Mapping[str, Spread]) -> dict[str, Spread]:
    """Return *known* as *unseen* decode rows would have it, none narrower than a nearer one.

    `measured` is what its rows say. The others have few rows, of two or three labs: they are
    made wider by them, never narrower.
    """
    found: dict[str, Spread] = {}
    least = 1.0
    for standing in get_args(Standing):
        own = [row.off for row in unseen if row.standing == standing and row.row.kind == "decode"]
        factor = math.ceil(bar(own) / _STEP - 1e-9) * _STEP if own else 1.0
        if standing != "measured":
            factor = max(factor, known[standing].factor)
        least = max(least, round(factor, 2))
        found[standing] = msgspec.structs.replace(known[standing], factor=least)
    return found


def main() -> None:
    """Print and perhaps write a fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write it into {PROFILE.name}")
    write = parser.parse_args().write
    catalog = load_catalog()
    rows = questions(catalog.measurements, catalog)
    parameters = catalog.speed.parameters
    values = fit(rows, parameters)
    print(f"{len(rows)} rows\n{'parameter':24}{'prior':>12}{'fitted':>12}{'moved':>8}")
    for name, value in values.items():
        prior, width = parameters[name].prior, parameters[name].width
        print(f"{name:24}{prior:12.4g}{value:12.4g}{math.log(value / prior) / width:+7.1f}σ")
    for url in sorted({row.measured.url for row in rows}):
        own = [row for row in rows if row.measured.url == url]
        off = [abs(row.predicted(values) / row.value - 1) for row in own]
        print(f"{statistics.median(off):7.1%} median of {len(own):3} rows: {url[-60:]}")
    unseen = left_out(rows, catalog)
    spreads = spreads_of(unseen, catalog.speed.spreads)
    for standing, entry in spreads.items():
        off = [row.off for row in unseen if row.standing == standing and row.row.kind == "decode"]
        held = sum(size <= entry.factor for size in off)
        print(f"{standing:12} ×÷{entry.factor:.2f} holds {held} of {len(off)} decode rows left out")
    if write:
        fitted = {
            name: msgspec.structs.replace(entry, value=values[name])
            for name, entry in parameters.items()
        }
        rewrite(PROFILE, fitted)
        rewrite_spreads(PROFILE, {name: f"factor: {x.factor:g}" for name, x in spreads.items()})
        print(f"written to {PROFILE.name}")


def rewrite(path: Path, parameters: Mapping[str, Parameter]) -> None:
    """Write the values of *parameters* into the profile at *path*; the rest of it stays.

    A value no measurement moved is its prior again, and is not called fitted.
    """
    text = path.read_text(encoding="utf-8")
    for name, entry in parameters.items():
        moved = abs(math.log(entry.value / entry.prior)) > _MOVED
        value = float(f"{entry.value if moved else entry.prior:.3g}")
        text = re.sub(
            rf"(?m)^(  {re.escape(name)}: {{)(?:fitted: \w+, )?value: [^,]+,",
            rf"\g<1>{'fitted: true, ' if moved else ''}value: {value},",
            text,
        )
    path.write_text(text, encoding="utf-8")


def rewrite_spreads(path: Path, widths: Mapping[str, str]) -> None:
    """Write *widths* (`factor: 1.4`) into the spreads of the profile at *path*."""
    head, spreads = path.read_text(encoding="utf-8").split("\nspreads:\n")
    for name, width in widths.items():
        word = re.escape(width.split(":")[0])
        line = rf"(?m)^(  {re.escape(name)}: {{.*?){word}: [^,}}]+"
        spreads, count = re.subn(line, rf"\g<1>{width}", spreads)
        if count != 1:
            raise AssertionError(f"{path.name} has {count} lines for the spread {name}")
    path.write_text(f"{head}\nspreads:\n{spreads}", encoding="utf-8")


if __name__ == "__main__":
    main()
