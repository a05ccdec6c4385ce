"""Find a profile by the word a person or a driver uses for it."""

from __future__ import annotations

import re

from kimideploy.catalog.types import Catalog, Engine, Gpu, Model, Tier
from kimideploy.errors import RequestError


def find_gpu(catalog: Catalog, word: str) -> Gpu:
    """Return the GPU whose id or alias is *word*, case and punctuation aside; or RequestError."""
    wanted = _plain(word)
    for gpu in catalog.gpus.values():
        if wanted in {_plain(name) for name in (gpu.id, *gpu.aliases)}:
            return gpu
    words = {_plain(name): name for gpu in catalog.gpus.values() for name in gpu.aliases}
    raise RequestError(
        f"GPU {word!r} is not known{_near(wanted, words)}",
        hint="`kimideploy profiles list gpus` shows the names; --profiles DIR adds one",
    )


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
    wanted = word.lower()
    for model in catalog.models.values():
        repos = [checkpoint.repo for checkpoint in model.checkpoints if checkpoint.repo is not None]
        if wanted in {name.lower() for name in (model.id, *model.aliases, *repos)}:
            return model
    raise RequestError(
        f"model {word!r} is not known{_near(wanted, {name: name for name in catalog.models})}",
        hint=f"models: {', '.join(sorted(catalog.models))}",
    )


def find_profile(catalog: Catalog, word: str) -> Model | Gpu | Engine | Tier:
    """Return the profile of any kind that *word* names; or RequestError."""
    for engine in catalog.engines.values():
        if word.lower() == engine.id:
            return engine
    for tier in catalog.tiers:
        if word.lower() == tier.id:
            return tier
    for find in (find_model, find_gpu):
        try:
            return find(catalog, word)
        except RequestError:
            continue
    names = [*catalog.models, *catalog.gpus, *catalog.engines, *(tier.id for tier in catalog.tiers)]
    raise RequestError(
        f"profile {word!r} is not known{_near(word.lower(), {name: name for name in names})}",
        hint="`kimideploy profiles list` shows the names",
    )


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _near(word: str, names: dict[str, str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(word, list(names), 1)
    return f"; did you mean `{names[near[0]]}`?" if near else ""
