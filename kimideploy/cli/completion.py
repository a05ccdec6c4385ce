"""What the shell offers behind an option: names from the shipped profiles and the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog


def models(incomplete: str) -> list[str]:
    """Return the models that *incomplete* begins."""
    return _starting(incomplete, _catalog().models)


def tiers(incomplete: str) -> list[tuple[str, str]]:
    """Return the tiers that *incomplete* begins, with their titles."""
    found = _catalog().tiers
    return [(tier.id, tier.title) for tier in found if tier.id.startswith(incomplete)]


def checkpoints(incomplete: str) -> list[str]:
    """Return the checkpoints of any model that *incomplete* begins."""
    every = _catalog().models.values()
    return _starting(incomplete, (c.id for model in every for c in model.checkpoints))


def clients(incomplete: str) -> list[str]:
    """Return the clients that *incomplete* begins."""
    return _starting(incomplete, (client.id for client in _catalog().clients))


def hardware_words(incomplete: str) -> list[str]:
    """Return, after a count such as `8x` or `2x8x`, the GPUs that the rest begins."""
    count, cross, begun = incomplete.rpartition("x")
    if not cross or not count.replace("x", "").isdigit():
        return []
    return [f"{count}x{name}" for name in _starting(begun.lower(), _catalog().gpus)]


def _starting(incomplete: str, names: object) -> list[str]:
    every = dict.fromkeys(names)  # type: ignore[call-overload]
    return [name for name in every if name.startswith(incomplete)]


def _catalog() -> Catalog:
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.errors import KimiError  # noqa: PLC0415

    try:
        return load_catalog(user_overlays())
    except KimiError:
        # Why: nobody wants to read about a broken profile in the middle of a word.
        return load_catalog()
