"""`failures.yaml`: lines of a log that mean a known failure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from kimideploy.catalog.types import EngineId, Profile

#: the layers below an engine, which speak in every log
Layer = Literal["any", "nccl", "cuda", "nvidia", "kernel", "systemd", "loader", "container"]


class Failure(Profile, frozen=True, kw_only=True):
    """A known failure: the line that shows it, what it means, what to do, where it was seen."""

    id: str
    #: the engines whose log it is in, or layers
    of: tuple[EngineId | Layer, ...]
    #: a regular expression that is searched in one line
    pattern: str
    cause: str
    fix: str
    link: str
    #: what writes the line
    where: str


class FailuresFile(Profile, frozen=True, kw_only=True):
    """`failures.yaml`: of several that fit, the first one is the cause."""

    #: when the links were read
    date: str
    failures: tuple[Failure, ...]


def of_engine(failures: Iterable[Failure], engine: EngineId | None) -> tuple[Failure, ...]:
    """Return the failures that may show in the log of *engine*; None: of any."""
    engines = set(get_args(EngineId))
    return tuple(
        one for one in failures if engine is None or engine in one.of or not engines & set(one.of)
    )
