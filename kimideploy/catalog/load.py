"""Load the Catalog: the shipped profiles, then the user's, file by file.

A folder of profiles holds the files of SHAPES: `architectures.yaml`, `speed.yaml` and so on, and
one file each in `models/`, `gpus/` and `engines/`. A file in a later folder replaces the one of the
same name whole; nothing is merged. Measurements are as shipped.

Shipped files are known to be right by their own tests; what a user adds is checked whenever it
is read, and `check_catalog` checks everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from kimideploy.catalog.check import Fault, own_faults, shared_faults
from kimideploy.catalog.clients import ClientsFile
from kimideploy.catalog.failures import FailuresFile
from kimideploy.catalog.fitted import OverheadFile, SpeedFile
from kimideploy.catalog.measurements import read_measurements
from kimideploy.catalog.prices import PriceFile
from kimideploy.catalog.thresholds import Thresholds
from kimideploy.catalog.types import (
    AdviceFacts,
    Architecture,
    Catalog,
    Engine,
    EngineId,
    Format,
    Generation,
    Gpu,
    Model,
    NoticeRule,
    Profile,
    Source,
    Tier,
    WeightFormat,
)
from kimideploy.documents import place_of, read_document
from kimideploy.errors import RequestError
from kimideploy.resources import shipped

T = TypeVar("T")


class ArchitectureFile(Profile, frozen=True, kw_only=True):
    """`architectures.yaml`."""

    sources: dict[str, Source]
    architectures: dict[str, Architecture]


class FormatFile(Profile, frozen=True, kw_only=True):
    """`formats.yaml`."""

    sources: dict[str, Source]
    formats: dict[WeightFormat, Format]


class GenerationFile(Profile, frozen=True, kw_only=True):
    """`generations.yaml`."""

    sources: dict[str, Source]
    generations: tuple[Generation, ...]


class TierFile(Profile, frozen=True, kw_only=True):
    """`tiers.yaml`."""

    tiers: tuple[Tier, ...]


class NoticeFile(Profile, frozen=True, kw_only=True):
    """`notices.yaml`."""

    notices: tuple[NoticeRule, ...]


#: the shape of each file, by its place in the folder
SHAPES: Mapping[str, type[Profile]] = {
    "architectures.yaml": ArchitectureFile,
    "formats.yaml": FormatFile,
    "generations.yaml": GenerationFile,
    "tiers.yaml": TierFile,
    "notices.yaml": NoticeFile,
    "clients.yaml": ClientsFile,
    "failures.yaml": FailuresFile,
    "thresholds.yaml": Thresholds,
    "advice.yaml": AdviceFacts,
    "prices.yaml": PriceFile,
    "speed.yaml": SpeedFile,
    "overhead.yaml": OverheadFile,
    "models/*.yaml": Model,
    "gpus/*.yaml": Gpu,
    "engines/*.yaml": Engine,
}


def user_folder() -> Path:
    """Return where a user keeps profiles of their own."""
    return Path(platformdirs.user_config_dir("kimideploy")) / "profiles"


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """One file of profiles: its place in the folder, where it lies, and what it says."""

    place: str
    path: Path
    value: Profile


def load_catalog(overlays: Sequence[Path] = ()) -> Catalog:
    """Return the shipped profiles with *overlays* over them, later ones last.

    Raises RequestError with FILE:LINE:COLUMN for what can't be read or names what is not there.
    """
    files = [_read(place, path) for place, path in _found(overlays).items()]
    catalog = _build({file.place: file.value for file in files})
    home = shipped("profiles")
    added = [file for file in files if not file.path.is_relative_to(home)]
    faults = chain.from_iterable(own_faults(file.place, file.value) for file in added)
    for fault in chain(faults, shared_faults(catalog)):
        raise RequestError(_told(fault, files))
    return catalog


def check_catalog(overlays: Sequence[Path] = ()) -> int:
    """Return how many files there are when all is well.

    Raises RequestError with a line FILE:LINE:COLUMN for everything that is wrong.
    """
    read = [_tried(place, path) for place, path in _found(overlays).items()]
    wrong = [file.message for file in read if isinstance(file, RequestError)]
    files = [file for file in read if isinstance(file, ProfileFile)]
    faults = [fault for file in files for fault in own_faults(file.place, file.value)]
    if not wrong and not faults:
        faults += shared_faults(_build({file.place: file.value for file in files}))
    wrong += [_told(fault, files) for fault in faults]
    if wrong:
        raise RequestError("\n".join(wrong))
    return len(files)


def user_overlays(given: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Return the user's own folder, if there is one, then *given*."""
    own = user_folder()
    return (*([own] if own.is_dir() else []), *given)


def profile_files(folder: Path) -> dict[str, Path]:
    """Return the profile files of *folder* by their place in it; others are an error."""
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder of profiles")
    found = {}
    for path in folder.rglob("*.y*ml"):
        place = path.relative_to(folder).as_posix()
        if place.startswith("."):
            continue
        if shape_of(place) is None:
            raise RequestError(
                f"{path} is no profile",
                hint=f"a folder of profiles holds {', '.join(SHAPES)}",
            )
        found[place] = path
    return found


def shape_of(place: str) -> type[Profile] | None:
    """Return the type a file at *place* must have."""
    folder, _, name = place.rpartition("/")
    return SHAPES.get(f"{folder}/*.yaml" if folder and name.endswith(".yaml") else place)


def _found(overlays: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (shipped("profiles"), *overlays):
        found |= profile_files(folder)
    return {place: found[place] for place in sorted(found, key=lambda p: p.removesuffix(".yaml"))}


def _read(place: str, path: Path) -> ProfileFile:
    shape = shape_of(place)
    if shape is None:
        raise RequestError(f"{path} is no profile")
    return ProfileFile(place, path, read_document(_text(path), shape, name=str(path)))


def _tried(place: str, path: Path) -> ProfileFile | RequestError:
    try:
        return _read(place, path)
    except RequestError as error:
        return error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RequestError(f"{path}: {error}") from error


def _told(fault: Fault, files: Iterable[ProfileFile]) -> str:
    path = next((file.path for file in files if file.place == fault.place), Path(fault.place))
    return f"{place_of(_text(path), fault.word, name=str(path))}: {fault.message}"


def _build(files: Mapping[str, Profile]) -> Catalog:
    """Return the Catalog of *files*, by their places; a file that is missing is an error."""

    def whole(place: str, shape: type[T]) -> T:
        value = files.get(place)
        if not isinstance(value, shape):
            raise RequestError(f"the profiles lack {place}")
        return value

    def each(shape: type[T]) -> list[T]:
        return [value for value in files.values() if isinstance(value, shape)]

    engines = {engine.id: engine for engine in each(Engine)}
    gpus = {gpu.id: gpu for gpu in each(Gpu)}
    measurements = read_measurements("throughput", gpus)
    unfitted = read_measurements(
        "throughput", gpus, shipped("profiles") / "measurements" / "unfitted"
    )
    text = msgspec.json.encode((files, measurements, unfitted), enc_hook=int, order="deterministic")
    return Catalog(
        architectures=whole("architectures.yaml", ArchitectureFile).architectures,
        formats=whole("formats.yaml", FormatFile).formats,
        models={model.id: model for model in each(Model)},
        generations={g.id: g for g in whole("generations.yaml", GenerationFile).generations},
        gpus=gpus,
        engines={name: engines[name] for name in _ENGINES if name in engines},
        tiers=whole("tiers.yaml", TierFile).tiers,
        notices=whole("notices.yaml", NoticeFile).notices,
        clients=whole("clients.yaml", ClientsFile).clients,
        failures=whole("failures.yaml", FailuresFile).failures,
        thresholds=whole("thresholds.yaml", Thresholds),
        advice=whole("advice.yaml", AdviceFacts),
        prices=whole("prices.yaml", PriceFile),
        speed=whole("speed.yaml", SpeedFile),
        overhead=whole("overhead.yaml", OverheadFile),
        measurements=measurements,
        unfitted=unfitted,
        digest=hashlib.sha256(text).hexdigest(),
    )


#: the order in which engines are tried, and preferred where nothing else decides
_ENGINES: tuple[EngineId, ...] = ("vllm", "sglang", "ktransformers", "llamacpp")
