"""What an engine counts: requests and cache, under the names that its profile tells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kimideploy.catalog.types import Metrics
from kimideploy.conformance.client import Client, Unreachable

_LINE = re.compile(
    r"^([a-z_]+:[a-z_]+)(?:\{[^}\n]*\})? ([0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests decoded and waiting, the share of the KV cache in use, tokens ever made.

    None: the engine doesn't say.
    """

    running: float | None = None
    waiting: float | None = None
    cache: float | None = None
    made: float | None = None


def counted(client: Client, names: Metrics, *, timeout: float) -> Counted:
    """Return what the engine at *client* counts; all None where nobody answers."""
    try:
        reply = client.get(names.path, timeout=timeout)
    except Unreachable:
        return Counted()
    return read(reply.body.decode("utf-8", "replace"), names)


def read(text: str, names: Metrics) -> Counted:
    """Return what a page of metrics says, summed over its labels; of the cache, the fullest."""
    values: dict[str, list[float]] = {}
    for name, value in _LINE.findall(text):
        values.setdefault(name, []).append(float(value))

    def of(called: tuple[str, ...]) -> list[float]:
        return next((values[name] for name in called if name in values), [])

    running, waiting = of(names.running), of(names.waiting)
    cache, made = of(names.cache), of(names.made)
    return Counted(
        running=sum(running) if running else None,
        waiting=sum(waiting) if waiting else None,
        cache=max(cache) if cache else None,
        made=sum(made) if made else None,
    )
