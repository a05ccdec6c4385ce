"""Fit the parameters of profiles/overhead.yaml to published startup logs, and print the residuals.

    python -m bench.fit_memory            print what a fit gives
    python -m bench.fit_memory --write    and write it into profiles/overhead.yaml

Least squares on the bytes of the cache (GiB), with a soft loss, every parameter held to its prior.
The margin is written too: four of five logs lie within it of what a model predicts that was fitted
without their source, rounded up.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import least_squares

from bench.figures import bar
from bench.fit_speed import rewrite, rewrite_spreads
from bench.memory_rows import Log, logs
from kimideploy.catalog.fitted import Margin, OverheadFile
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import read_measurements
from kimideploy.quantities import GIB, Bytes

PROFILE = Path(__file__).parents[1] / "profiles" / "overhead.yaml"
#: GiB by which two boots of one set-up differ
_NOISE = 0.3
_SOFT = 1.5
#: margins are rounded up to a multiple of this, GiB
_STEP = 0.1


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


@dataclass(frozen=True, slots=True)
class Unseen:
    """A log as a model predicted it that knew nothing of the log's source."""

    log: Log
    predicted: int
    #: GiB on one GPU by which the predicted cache is larger
    missing: float


def left_out(rows: Sequence[Log], known: OverheadFile) -> list[Unseen]:
    """Return every log, predicted by a fit to the logs of the other sources."""
    found = []
    for source in dict.fromkeys(row.measured.url for row in rows):
        there = fit([row for row in rows if row.measured.url != source], known)
        found += [
            Unseen(row, row.predicted(there).kv_tokens, missing(row, there))
            for row in rows
            if row.measured.url == source
        ]
    return found


def margins_of(unseen: Sequence[Unseen], known: Mapping[str, Margin]) -> dict[str, Margin]:
    """Return *known* as *unseen* logs would have it; what nobody logged is twice as wide at least.

    The margins of other set-ups are made wider by this, never narrower.
    """
    gib = math.ceil(bar([abs(row.missing) for row in unseen]) / _STEP - 1e-9) * _STEP
    measured = Bytes(round(gib * GIB))
    other = max(known["other"].bytes, Bytes(2 * measured))
    return {
        "measured": msgspec.structs.replace(known["measured"], bytes=measured),
        "other": msgspec.structs.replace(known["other"], bytes=other),
    }


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
    unseen = left_out(rows, catalog.overhead)
    margins = margins_of(unseen, catalog.overhead.spreads)
    width = margins["measured"].bytes / GIB
    held = sum(abs(row.missing) <= width for row in unseen)
    print(f"±{width:.1f} GiB holds {held} of {len(unseen)} logs left out")
    if write:
        rewrite(PROFILE, found.parameters)
        widths = {name: f"bytes: {entry.bytes / GIB:g} GiB" for name, entry in margins.items()}
        rewrite_spreads(PROFILE, widths)
        print(f"written to {PROFILE.name}")


def off_share(row: Log, known: OverheadFile) -> float:
    """The predicted tokens over the logged ones, less one."""
    return row.predicted(known).kv_tokens / (row.tokens or 1) - 1


if __name__ == "__main__":
    main()
