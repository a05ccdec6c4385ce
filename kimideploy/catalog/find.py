"""Find a profile by the word a person or a driver uses for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from kimideploy.catalog.types import Catalog, Engine, Gpu, Model, Tier
from kimideploy.errors import RequestError


def find_gpu(catalog: Catalog, word: str) -> Gpu:
    """Return the GPU whose id or alias is *word*, case and punctuation aside; or RequestError."""
    found = _gpu(catalog, word)
    if found is None:
        names = [name for gpu in catalog.gpus.values() for name in gpu.aliases]
        raise RequestError(
            f"GPU {word!r} is not known{_near(plain(word), names)}",
            hint="`kimideploy profiles list gpus` shows the names; --profiles DIR adds one",
        )
    return found


def gpu_by_driver_name(catalog: Catalog, name: str, memory_total: int | None) -> Gpu | None:
    """Return the GPU whose pattern fits *name* as the driver prints it.

    Where several fit (an RTX 4090 with 24 or 48 GB), the one nearest to *memory_total* bytes.
    """
    fitting = [
        gpu
        for gpu in catalog.gpus.values()
        if any(re.fullmatch(pattern, name) for pattern in gpu.driver_names)
    ]
    if memory_total is None:
        return fitting[0] if fitting else None
    return min(fitting, key=lambda gpu: abs(gpu.memory.usable - memory_total), default=None)


def find_model(catalog: Catalog, word: str) -> Model:
    """Return the model whose id, alias or repository is *word*; or RequestError."""
    found = _model(catalog, word)
    if found is None:
        raise RequestError(
            f"model {word!r} is not known{_near(plain(word), catalog.models)}",
            hint=f"models: {', '.join(sorted(catalog.models))}",
        )
    return found


def find_profile(catalog: Catalog, word: str) -> Model | Gpu | Engine | Tier:
    """Return the profile of any kind that *word* names; or RequestError."""
    wanted = plain(word)
    for engine in catalog.engines.values():
        if wanted == plain(engine.id):
            return engine
    for tier in catalog.tiers:
        if wanted == plain(tier.id):
            return tier
    found = _model(catalog, word) or _gpu(catalog, word)
    if found is None:
        ids = (*catalog.models, *catalog.gpus, *catalog.engines, *(t.id for t in catalog.tiers))
        raise RequestError(
            f"profile {word!r} is not known{_near(wanted, ids)}",
            hint="`kimideploy profiles list` shows the names",
        )
    return found


def plain(word: str) -> str:
    """Return *word* without case and punctuation, as words for a GPU are compared."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _gpu(catalog: Catalog, word: str) -> Gpu | None:
    wanted = plain(word)
    for gpu in catalog.gpus.values():
        if wanted in {plain(name) for name in (gpu.id, *gpu.aliases)}:
            return gpu
    return None


def _model(catalog: Catalog, word: str) -> Model | None:
    wanted = word.lower()
    for model in catalog.models.values():
        repos = [checkpoint.repo for checkpoint in model.checkpoints if checkpoint.repo is not None]
        if wanted in {name.lower() for name in (model.id, *model.aliases, *repos)}:
            return model
    return None


def _near(word: str, names: Iterable[str]) -> str:
    """Suggest the one of *names* whose plain spelling is like *word*."""
    spelled = {plain(name): name for name in names}
    found = get_close_matches(word, list(spelled), 1)
    return f"; did you mean `{spelled[found[0]]}`?" if found else ""
