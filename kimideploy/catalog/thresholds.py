"""`thresholds.yaml`: where the doctor draws its lines."""

from __future__ import annotations

from kimideploy.catalog.types import Profile, Source
from kimideploy.quantities import Bytes


class Size(Profile, frozen=True, kw_only=True):
    """A number of bytes."""

    bytes: Bytes
    source: str
    guess: bool = False
    note: str | None = None


class Count(Profile, frozen=True, kw_only=True):
    """A number with its unit."""

    value: float
    unit: str
    source: str
    guess: bool = False
    note: str | None = None


class Since(Profile, frozen=True, kw_only=True):
    """The version of a program from which on something holds."""

    version: str
    source: str


class CudaFloor(Profile, frozen=True, kw_only=True):
    """The branch of the driver that runs all CUDA of a major version."""

    major: int
    driver: str
    source: str


class FailingDriver(Profile, frozen=True, kw_only=True):
    """A driver that was reported to fail on GPUs of a generation."""

    version: str
    generation: str
    why: str
    link: str


class Thresholds(Profile, frozen=True, kw_only=True):
    """`thresholds.yaml`."""

    sources: dict[str, Source]
    sizes: dict[str, Size]
    counts: dict[str, Count]
    versions: dict[str, Since]
    cuda: tuple[CudaFloor, ...]
    drivers: tuple[FailingDriver, ...]
