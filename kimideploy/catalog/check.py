"""What one file of profiles can't say alone: that they agree with each other.

Everything here is a function of its arguments; a Fault names the word that is wrong, and
whoever has the file's text can say where it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from kimideploy.catalog.failures import FailuresFile
from kimideploy.catalog.find import plain
from kimideploy.catalog.types import Catalog, Checkpoint, Engine, Gpu, Model, Profile
from kimideploy.places import near


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in the file at `place` of the folder, about the value or key `word`."""

    place: str
    word: str
    message: str


def own_faults(place: str, value: Profile) -> Iterator[Fault]:
    """Yield what is wrong with one file, whatever the others say."""
    table = getattr(value, "sources", None)
    known = table if isinstance(table, dict) else {}
    for word in _sources(value):
        if word not in known:
            yield Fault(place, word, f"source `{word}` is not in `sources:`{near(word, known)}")
    name = PurePosixPath(place).stem
    match value:
        case Model():
            yield from _named(place, value.id, name)
            for checkpoint in value.checkpoints:
                yield from _checkpoint(place, checkpoint)
        case Gpu():
            yield from _named(place, value.id, name)
            yield from _patterns(place, value.driver_names)
        case Engine():
            yield from _named(place, value.id, name)
            yield from _patterns(place, [stage.pattern for stage in value.log.stages])
        case FailuresFile():
            yield from _patterns(place, [one.pattern for one in value.failures])
            ids = Counter(one.id for one in value.failures)
            for word in (word for word, count in ids.items() if count > 1):
                yield Fault(place, word, f"two failures are called `{word}`")
        case _:
            return


def shared_faults(catalog: Catalog) -> Iterator[Fault]:
    """Yield every reference to a profile that is not there, and every name that two share."""
    for model in catalog.models.values():
        place = f"models/{model.id}.yaml"
        yield from _unknown(place, "architecture", [model.architecture], catalog.architectures)
        formats = [str(c.format) for c in model.checkpoints if c.format != "gguf"]
        yield from _unknown(place, "format", formats, set(map(str, catalog.formats)))
    for gpu in catalog.gpus.values():
        place = f"gpus/{gpu.id}.yaml"
        yield from _unknown(place, "generation", [gpu.generation], catalog.generations)
    for engine in catalog.engines.values():
        denied = [name for version in engine.versions.denied for name in version.generations]
        place = f"engines/{engine.id}.yaml"
        yield from _unknown(place, "generation", denied, catalog.generations)
    for tier in catalog.tiers:
        yield from _unknown("tiers.yaml", "GPU", tier.gpus, catalog.gpus)
        yield from _unknown("tiers.yaml", "generation", tier.generations, catalog.generations)
    for rule in catalog.notices:
        yield from _unknown("notices.yaml", "GPU", rule.when.gpus, catalog.gpus)
        yield from _unknown("notices.yaml", "model", rule.when.models, catalog.models)
        yield from _unknown(
            "notices.yaml", "generation", rule.when.generations, catalog.generations
        )
    rented = [rent.gpu for rent in catalog.prices.gpus]
    yield from _unknown("prices.yaml", "GPU", rented, catalog.gpus)
    sold = [api.model for api in catalog.prices.apis]
    yield from _unknown("prices.yaml", "model", sold, catalog.models)
    quoted = [figure.model for figure in catalog.advice.benchmarks]
    yield from _unknown("advice.yaml", "model", quoted, catalog.models)
    yield from _shared("gpus", {gpu.id: gpu.aliases for gpu in catalog.gpus.values()})
    yield from _shared("models", {model.id: model.aliases for model in catalog.models.values()})


def _sources(value: object) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            inner = getattr(value, field)
            if field == "source" and isinstance(inner, str):
                yield inner
            else:
                yield from _sources(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _sources(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _sources(inner)


def _named(place: str, said: str, name: str) -> Iterator[Fault]:
    if said != name:
        yield Fault(place, said, f"the id is `{said}`, the file's name says `{name}`")


def _checkpoint(place: str, checkpoint: Checkpoint) -> Iterator[Fault]:
    """What a plan reads of a checkpoint must be there."""
    if not checkpoint.exists:
        return
    needed = ["repo"]
    if checkpoint.format == "gguf":
        needed += ["quant", "bits", "size", "non_expert"]
    for key in needed:
        if getattr(checkpoint, key) is None:
            yield Fault(place, checkpoint.id, f"checkpoint `{checkpoint.id}` lacks `{key}`")


def _patterns(place: str, patterns: Iterable[str]) -> Iterator[Fault]:
    for pattern in patterns:
        error = _wrong(pattern)
        if error is not None:
            yield Fault(place, pattern, f"this is no regular expression: {error}")


def _wrong(pattern: str) -> Exception | None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return error
    return None


def _unknown(
    place: str, what: str, words: Iterable[str], known: Collection[str]
) -> Iterator[Fault]:
    for word in words:
        if word not in known:
            yield Fault(place, word, f"{what} `{word}` has no profile{near(word, known)}")


def _shared(folder: str, names: Mapping[str, Iterable[str]]) -> Iterator[Fault]:
    taken: dict[str, str] = {}
    for name, aliases in names.items():
        for word in (name, *aliases):
            other = taken.setdefault(plain(word), name)
            if other != name:
                yield Fault(f"{folder}/{name}.yaml", word, f"`{word}` names `{other}` too")
