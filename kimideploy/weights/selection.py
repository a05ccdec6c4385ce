"""Which files of a repository an engine needs: its weights, config, tokenizer, template, code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights.manifest import PICKLE, Item

INDEX = "model.safetensors.index.json"
#: what lies beside the weights and is read: configs, tokenizers, templates, code
_BESIDE = (".json", ".jinja", ".model", ".py", ".tiktoken", ".txt")
#: licences travel with what they are of
_LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|THIRD_PARTY_NOTICES)(\.md|\.txt)?", re.IGNORECASE)
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checkpoint by name: a repository, a revision, and of several checkpoints which."""

    repo: str
    #: a branch, tag or commit; None is the default branch
    revision: str | None = None
    #: globs of the weight files; None: the safetensors that the index names
    pattern: str | None = None
    quant: str | None = None
    #: files beside a GGUF's own that are needed by name, such as the vision projector
    beside: tuple[str, ...] = ()
    #: code that a plan has pinned, None where no plan says
    code: tuple[CodePin, ...] | None = None


def select(
    items: Sequence[Item], wanted: Wanted, index: Callable[[Item], frozenset[str]]
) -> tuple[Item, ...]:
    """Return the items an engine needs, the small ones first.

    *index* reads the names of the shards from the index. Raises WeightsError for weights that are
    missing, in parts, or of several checkpoints none of which is named.
    """
    weights = (
        _gguf(items, wanted) if _is_gguf(items, wanted) else _safetensors(items, wanted, index)
    )
    names = {item.path for item in weights}
    rest = [item for item in items if item.path not in names and _read(item.path, wanted)]
    missing = [name for name in wanted.beside if name not in {item.path for item in items}]
    if missing:
        raise WeightsError(f"{wanted.repo} lacks {missing[0]}, which the engine is told to load")
    chosen = sorted(rest, key=lambda item: item.path) + sorted(weights, key=lambda i: i.path)
    return tuple(sorted(chosen, key=lambda item: item.sha256 is not None))


def _is_gguf(items: Sequence[Item], wanted: Wanted) -> bool:
    if wanted.pattern is not None:
        return wanted.pattern.endswith((".gguf", "/*"))
    return not any(item.path.endswith(".safetensors") for item in items)


def _read(path: str, wanted: Wanted) -> bool:
    if path in wanted.beside:
        return True
    root = "/" not in path
    return root and (path.endswith(_BESIDE) or _LICENCE.fullmatch(path) is not None)


def _safetensors(
    items: Sequence[Item], wanted: Wanted, index: Callable[[Item], frozenset[str]]
) -> list[Item]:
    there = {item.path: item for item in items}
    if wanted.pattern is not None:
        found = [item for item in items if fnmatchcase(item.path, wanted.pattern)]
        if not found:
            raise WeightsError(f"{wanted.repo} has no files that match {wanted.pattern!r}")
        return found
    if INDEX in there:
        named = sorted(index(there[INDEX]))
        missing = [name for name in named if name not in there]
        if missing:
            raise WeightsError(f"{wanted.repo} lacks {missing[0]}, which its index names")
        return [there[name] for name in named]
    found = [item for item in items if item.path.endswith(".safetensors") and "/" not in item.path]
    if found:
        return found
    pickled = next((item.path for item in items if item.path.endswith(PICKLE)), None)
    if pickled is not None:
        raise WeightsError(
            f"{wanted.repo} has its weights as pickle only ({pickled}), which runs code",
            hint="name a repository with safetensors or GGUF files",
        )
    raise WeightsError(f"{wanted.repo} has no safetensors or GGUF files")


def _gguf(items: Sequence[Item], wanted: Wanted) -> list[Item]:
    quants: dict[str, list[Item]] = {}
    for item in items:
        if item.path.endswith(".gguf") and "mmproj" not in item.path:
            if wanted.pattern is not None and not fnmatchcase(item.path, wanted.pattern):
                continue
            part = _PART.fullmatch(item.path)
            quants.setdefault(part[1] if part is not None else item.path, []).append(item)
    if not quants:
        what = f" that match {wanted.pattern!r}" if wanted.pattern is not None else ""
        raise WeightsError(f"{wanted.repo} has no safetensors or GGUF files{what}")
    if len(quants) > 1:
        some = ", ".join(sorted(quants)[:6]) + (", …" if len(quants) > 6 else "")  # noqa: PLR2004
        raise WeightsError(
            f"{wanted.repo} has {len(quants)} checkpoints: {some}",
            hint=f"name one: --files {shlex.quote(f'{min(quants)}*')}",
        )
    ((_, found),) = quants.items()
    lacking = missing_parts(item.path for item in found)
    if lacking:
        raise WeightsError(f"{wanted.repo} lacks {lacking[0]}, a part of that GGUF")
    return found


def missing_parts(paths: Iterable[str]) -> list[str]:
    """Return the parts of a split GGUF that its own numbering promises and *paths* lack."""
    names = set(paths)
    wanted: set[str] = set()
    for name in names:
        part = _PART.fullmatch(name)
        if part is not None and int(part[3]) < 10_000:  # noqa: PLR2004
            total = int(part[3])
            wanted |= {f"{part[1]}-{n:05d}-of-{part[3]}.gguf" for n in range(1, total + 1)}
    return sorted(wanted - names)
