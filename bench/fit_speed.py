"""Fit the parameters of profiles/speed.yaml to the published speeds, and print the residuals.

    python -m bench.fit_speed            print what a fit gives
    python -m bench.fit_speed --write    and write it into profiles/speed.yaml

Least squares on the logarithm of speed, with a soft loss (a wrong row pulls little), every
parameter held to its prior as if the prior were a measurement of its width. A source counts as at
most 40 rows, whatever it printed, and a row of confidence B as half of one.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import least_squares

from bench.rows import Question, questions
from kimideploy.catalog.fitted import Parameter
from kimideploy.catalog.load import load_catalog
from kimideploy.planning.steps import Parameters

PROFILE = Path(__file__).parents[1] / "profiles" / "speed.yaml"
#: the scatter of one good measurement: runs of one lab differ by 4 %, labs by more
_NOISE = 0.1
_MOST = 40
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


def spread(rows: Sequence[Question], p: Parameters, share: float = 0.8) -> float:
    """Return the factor within which *share* of the measurements lie from their predictions."""
    off = sorted(abs(math.log(row.predicted(p) / row.value)) for row in rows)
    return math.exp(off[min(len(off) - 1, int(share * len(off)))])


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
    print(f"four of five lie within a factor of {spread(rows, values):.2f}")
    if write:
        fitted = {
            name: msgspec.structs.replace(entry, value=values[name])
            for name, entry in parameters.items()
        }
        rewrite(PROFILE, fitted)
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


if __name__ == "__main__":
    main()
