"""Load the Catalog: the shipped profiles, then the user's, file by file.

A folder of profiles holds `architectures.yaml`, `formats.yaml`, `generations.yaml`,
`tiers.yaml`, `notices.yaml`, and one file each in `models/`, `gpus/` and `engines/`. A file in a
later folder replaces the one of the same name whole; nothing is merged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from kimideploy.catalog.types import (
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
from kimideploy.documents import read_document
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
    "models/*.yaml": Model,
    "gpus/*.yaml": Gpu,
    "engines/*.yaml": Engine,
}


def user_folder() -> Path:
    """Return where a user keeps profiles of their own."""
    return Path(platformdirs.user_config_dir("kimideploy")) / "profiles"


def load_catalog(overlays: Sequence[Path] = ()) -> Catalog:
    """Return the shipped profiles with *overlays* over them, later ones last.

    Raises RequestError with FILE:LINE:COLUMN for what can't be read, and with the file's name
    for a reference to a profile that is not there.
    """
    found: dict[str, Path] = {}
    for folder in (shipped("profiles"), *overlays):
        found |= profile_files(folder)
    return build({place: _read(place, path) for place, path in sorted(found.items())})


def check_catalog(overlays: Sequence[Path] = ()) -> int:
    """Return how many files there are, after reading all and compiling every pattern in them."""
    found: dict[str, Path] = {}
    for folder in (shipped("profiles"), *overlays):
        found |= profile_files(folder)
    catalog = load_catalog(overlays)
    for gpu in catalog.gpus.values():
        _patterns(found[f"gpus/{gpu.id}.yaml"], gpu.driver_names)
    for engine in catalog.engines.values():
        path = found[f"engines/{engine.id}.yaml"]
        _patterns(path, [stage.pattern for stage in engine.log.stages])
        _patterns(path, [failure.pattern for failure in engine.log.failures])
    return len(found)


def user_overlays(given: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Return the user's own folder, if there is one, then *given*."""
    own = user_folder()
    return (*([own] if own.is_dir() else []), *given)


def profile_files(folder: Path) -> dict[str, Path]:
    """Return the profile files of *folder* by their place in it; others are an error."""
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder of profiles")
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        place = path.relative_to(folder).as_posix()
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
    return SHAPES.get(f"{folder}/*.yaml" if folder and name else place)


def _read(place: str, path: Path) -> tuple[Path, Profile]:
    shape = shape_of(place)
    if shape is None:
        raise RequestError(f"{path} is no profile")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RequestError(f"{path}: {error}") from error
    return path, read_document(text, shape, name=str(path))


def build(files: Mapping[str, tuple[Path, Profile]]) -> Catalog:
    """Return the Catalog of *files*; raises RequestError where they don't agree."""

    def whole(place: str, shape: type[T]) -> T:
        value = files[place][1] if place in files else None
        if not isinstance(value, shape):
            raise RequestError(f"the profiles lack {place}")
        return value

    def each(folder: str, shape: type[T]) -> list[tuple[Path, T]]:
        return [
            (path, value)
            for place, (path, value) in files.items()
            if place.startswith(f"{folder}/") and isinstance(value, shape)
        ]

    catalog = Catalog(
        architectures=whole("architectures.yaml", ArchitectureFile).architectures,
        formats=whole("formats.yaml", FormatFile).formats,
        models=_by_id(each("models", Model), lambda model: model.id),
        generations={g.id: g for g in whole("generations.yaml", GenerationFile).generations},
        gpus=_by_id(each("gpus", Gpu), lambda gpu: gpu.id),
        engines=_engines(each("engines", Engine)),
        tiers=whole("tiers.yaml", TierFile).tiers,
        notices=whole("notices.yaml", NoticeFile).notices,
        digest="",
    )
    for path, value in files.values():
        _sources_exist(path, value)
    _references_exist(files, catalog)
    text = msgspec.json.encode(catalog, enc_hook=int, order="deterministic")
    return msgspec.structs.replace(catalog, digest=hashlib.sha256(text).hexdigest())


def _by_id(found: Iterable[tuple[Path, T]], name: Callable[[T], str]) -> dict[str, T]:
    result = {}
    for path, value in found:
        if name(value) != path.stem:
            raise RequestError(
                f"{path}:1:1: the file says id {name(value)!r}, its name {path.stem!r}"
            )
        result[name(value)] = value
    return result


#: the order in which engines are tried, and preferred where nothing else decides
_ENGINES: tuple[EngineId, ...] = ("vllm", "sglang", "ktransformers", "llamacpp")


def _engines(found: Iterable[tuple[Path, Engine]]) -> dict[EngineId, Engine]:
    engines = _by_id(found, lambda engine: engine.id)
    return {name: engines[name] for name in _ENGINES if name in engines}


def _sources_exist(path: Path, value: Profile) -> None:
    """Every `source:` names a key of the file's own `sources:` table."""
    table = getattr(value, "sources", None)
    known = set(table) if isinstance(table, dict) else set()
    for named in _named_sources(value):
        if named not in known:
            raise RequestError(f"{path}: source {named!r} is not in the file's `sources:`")


def _named_sources(value: object) -> Iterable[str]:
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            inner = getattr(value, field)
            if field == "source" and isinstance(inner, str):
                yield inner
            else:
                yield from _named_sources(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _named_sources(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _named_sources(inner)


def _references_exist(files: Mapping[str, tuple[Path, Profile]], catalog: Catalog) -> None:
    where = {place: path for place, (path, _) in files.items()}

    def check(place: str, what: str, names: Iterable[str], known: Iterable[str]) -> None:
        for name in sorted(set(names) - set(known)):
            raise RequestError(f"{where.get(place, place)}: {what} {name!r} is not a profile")

    for model in catalog.models.values():
        place = f"models/{model.id}.yaml"
        check(place, "architecture", [model.architecture], catalog.architectures)
    for gpu in catalog.gpus.values():
        place = f"gpus/{gpu.id}.yaml"
        check(place, "generation", [gpu.generation], catalog.generations)
    for tier in catalog.tiers:
        check("tiers.yaml", "GPU", tier.gpus, catalog.gpus)
        check("tiers.yaml", "generation", tier.generations, catalog.generations)
    for rule in catalog.notices:
        check("notices.yaml", "GPU", rule.when.gpus, catalog.gpus)
        check("notices.yaml", "generation", rule.when.generations, catalog.generations)
        check("notices.yaml", "model", rule.when.models, catalog.models)


def _patterns(path: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise RequestError(f"{path}: {pattern!r} is no regular expression: {error}") from error
