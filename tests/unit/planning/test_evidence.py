"""How near to a prediction somebody measured."""

from __future__ import annotations

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.planning.evidence import Evidence, Standing, evidence, measurements_of

CATALOG = load_catalog()
FOUND = measurements_of(CATALOG)


@pytest.mark.parametrize(
    ("gpu", "engine", "standing"),
    [
        ("rtx-pro-6000", "vllm", "measured"),
        ("h200", "sglang", "measured"),
        ("h100-80", "vllm", "generation"),
        ("a100-80", "vllm", "scaled"),
        ("h200", "llamacpp", "guess"),
        ("rtx4090-48", "ktransformers", "guess"),
    ],
)
def test_decoding(gpu: str, engine: EngineId, standing: Standing) -> None:
    """A set-up stands as near as the nearest row, and an engine nobody measured is a guess."""
    generation = CATALOG.gpus[gpu].generation
    found = evidence(gpu, engine, generation, FOUND["decode"], CATALOG.gpus)

    assert found.standing == standing
    assert (found.rows > 0) == (standing in ("measured", "generation"))


def test_prefill_of_the_hybrid_engine() -> None:
    """Prefill of the hybrid engine was measured on the card its authors used, and on no other."""
    rows = FOUND["prefill"]

    assert evidence("rtx4090-48", "ktransformers", "sm89", rows, CATALOG.gpus) == Evidence(
        "measured", len(rows)
    )
    assert evidence("a100-80", "ktransformers", "sm80", rows, CATALOG.gpus).standing == "scaled"


def test_an_unknown_card() -> None:
    """A card without a profile is scaled by its numbers, never taken for a relative."""
    assert evidence(None, "vllm", None, FOUND["decode"], CATALOG.gpus) == Evidence("scaled")


def test_without_rows() -> None:
    """With no measurement at all, engines that run on GPUs are scaled and the others a guess."""
    assert evidence("h200", "vllm", "sm90", (), CATALOG.gpus) == Evidence("scaled")
    assert evidence("h200", "llamacpp", "sm90", (), CATALOG.gpus) == Evidence("guess")


def test_rows_that_were_not_fitted_to_are_no_evidence() -> None:
    """Other models, doubtful rows and queues without a known load do not stand behind a number."""
    used = {m.id for rows in FOUND.values() for m in rows}
    rest = [m for m in CATALOG.measurements if m.id not in used]

    assert {"T001", "T048"} <= {m.id for m in rest}
    assert all(m.usable and not m.queued for rows in FOUND.values() for m in rows)
