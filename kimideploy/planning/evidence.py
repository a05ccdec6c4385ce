"""How near to a prediction of speed somebody measured; the wider its error bar, the farther."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kimideploy.catalog.find import plain
from kimideploy.catalog.measurements import Measurement
from kimideploy.catalog.types import Catalog, EngineId, Gpu

Subject = Literal["decode", "prefill"]
#: from the narrowest bar to the widest, as `spreads` of speed.yaml describes them
Standing = Literal["measured", "generation", "scaled", "guess"]

#: the source of a card's numbers that no profile states
DRIVER = "driver"
_DECODE = ("output_tok_s", "output_tok_s_per_user", "mean_tpot_ms")


@dataclass(frozen=True, slots=True)
class Evidence:
    """How near the nearest measurements are, and how many of them there are."""

    standing: Standing
    rows: int = 0


def measurements_of(catalog: Catalog) -> dict[Subject, list[Measurement]]:
    """Return the measurements that the speed model was fitted to, by what they are about.

    Such a row states a model of the catalog, its GPU and weights, the load, and a speed under it;
    `bench/rows.py` asks these and no others.
    """
    models = [plain(name) for x in catalog.models.values() for name in (x.id, x.name, *x.aliases)]
    found: dict[Subject, list[Measurement]] = {"decode": [], "prefill": []}
    for m in catalog.measurements:
        known = m.usable and m.format in catalog.formats and m.gpu in catalog.gpus
        if known and plain(m.model).startswith(tuple(models)):
            subject = _subject(m)
            if subject is not None:
                found[subject].append(m)
    return found


def _subject(m: Measurement) -> Subject | None:
    if m.engine == "ktransformers":
        prompt = m.number("prefill_tok_s") and m.number("input_len")
        return "prefill" if prompt and m.number("concurrency") == 1 else None
    loaded = m.number("concurrency") is not None and not m.queued
    return "decode" if loaded and any(m.number(column) for column in _DECODE) else None


def evidence(
    gpu: str | None,
    engine: EngineId,
    generation: str | None,
    rows: Iterable[Measurement],
    gpus: Mapping[str, Gpu],
) -> Evidence:
    """Return how near *rows* come to *engine* on *gpu*, of *generation*.

    Only `rows` count, so they are those about the same subject. Engines that share no kernels
    with a measured one (llama.cpp, experts on the CPU) are a guess unless measured themselves, and
    so is a card that no profile knows.
    """
    found = list(rows)
    if gpu is not None and gpus[gpu].source == DRIVER:
        return Evidence("guess")
    own = [m for m in found if m.gpu == gpu and m.engine == engine]
    if own:
        return Evidence("measured", len(own))
    if engine in ("llamacpp", "ktransformers") and all(m.engine != engine for m in found):
        return Evidence("guess")
    kin = [m for m in found if m.gpu is not None and gpus[m.gpu].generation == generation]
    return Evidence("generation", len(kin)) if kin and generation else Evidence("scaled")
