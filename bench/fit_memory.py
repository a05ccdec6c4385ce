"""Fit the parameters of profiles/overhead.yaml to published startup logs, and print the residuals.

    python -m bench.fit_memory            print what a fit gives
    python -m bench.fit_memory --write    and write it into profiles/overhead.yaml

Least squares on the bytes of the cache (GiB), with a soft loss, every parameter held to its prior.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import least_squares

from bench.fit_speed import rewrite
from bench.memory_rows import Log, logs
from kimideploy.catalog.fitted import OverheadFile
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import read_measurements
from kimideploy.quantities import GIB

PROFILE = Path(__file__).parents[1] / "profiles" / "overhead.yaml"
#: GiB by which two boots of one set-up differ
_NOISE = 0.3
_SOFT = 1.5


def with_values(known: OverheadFile, values: dict[str, float]) -> OverheadFile:
    """Return *known* with other values."""
    parameters = {
        name: msgspec.structs.replace(entry, value=values.get(name, entry.value))
        for name, entry in known.parameters.items()
    }
    return msgspec.structs.replace(known, parameters=parameters)


def missing(log: Log, known: OverheadFile) -> float:
    """GiB by which the predicted cache is larger than the logged one."""
    fit = log.predicted(known)
    return (
        (fit.kv_tokens - (log.tokens or 0)) / log.subject.layout.dp * fit.kv_bytes_per_token / GIB
    )


def fit(rows: Sequence[Log], known: OverheadFile) -> OverheadFile:
    """Return *known* with the values that fit *rows* best."""
    names = list(known.parameters)
    prior = np.log([known.parameters[name].prior for name in names])
    width = np.array([known.parameters[name].width for name in names])
    weights = [1.0 if row.measured.confidence == "A" else 0.5 for row in rows]

    def residuals(x: np.ndarray) -> np.ndarray:
        here = with_values(known, dict(zip(names, np.exp(x).tolist(), strict=True)))
        off = [w * missing(row, here) / _NOISE for row, w in zip(rows, weights, strict=True)]
        return np.concatenate([off, (x - prior) / width])

    found = least_squares(residuals, prior, loss="soft_l1", f_scale=_SOFT, diff_step=1e-3)
    return with_values(known, dict(zip(names, np.exp(found.x).tolist(), strict=True)))


def main() -> None:
    """Print and perhaps write a fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write it into {PROFILE.name}")
    write = parser.parse_args().write
    catalog = load_catalog()
    every = logs(read_measurements("memory", catalog.gpus), catalog)
    rows = [row for row in every if row.tokens is not None]
    found = fit(rows, catalog.overhead)
    print(f"{len(rows)} logs\n{'parameter':20}{'prior':>12}{'fitted':>12}{'moved':>8}")
    for name, entry in found.parameters.items():
        moved = math.log(entry.value / entry.prior) / entry.width
        print(f"{name:20}{entry.prior:12.4g}{entry.value:12.4g}{moved:+7.1f}σ")
    for row in rows:
        off, m = missing(row, found), row.measured
        print(f"{m.id} {off:+6.2f} GiB {off_share(row, found):+7.1%}  {m.gpu} DCP{m.dcp}")
    sizes = [abs(missing(row, found)) for row in rows]
    print(f"median {statistics.median(sizes):.2f} GiB, 4 of 5 within {quantile(sizes, 0.8):.2f}")
    if write:
        rewrite(PROFILE, found.parameters)
        print(f"written to {PROFILE.name}")


def off_share(row: Log, known: OverheadFile) -> float:
    """The predicted tokens over the logged ones, less one."""
    return row.predicted(known).kv_tokens / (row.tokens or 1) - 1


def quantile(values: Sequence[float], share: float) -> float:
    """The value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


if __name__ == "__main__":
    main()
