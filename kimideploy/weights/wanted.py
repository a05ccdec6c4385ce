"""Which repository a model, a checkpoint or a plan means, and which of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from kimideploy.catalog.find import find_model
from kimideploy.catalog.types import Catalog, Checkpoint, Model
from kimideploy.errors import RequestError
from kimideploy.planning.types import Plan
from kimideploy.weights.selection import Wanted

#: what a pattern chooses by
_SIGNS = frozenset("*?[")


def of_plan(plan: Plan, catalog: Catalog) -> tuple[Wanted, ...]:
    """Return what *plan* serves from: its checkpoint, and its draft model where it has one."""
    model = find_model(catalog, plan.request.model)
    checkpoint = _named(model, plan.candidate.checkpoint)
    main = replace(
        _wanted(model, checkpoint, plan.pins.revision, text_only=plan.candidate.text_only),
        code=plan.pins.code or None,
    )
    draft = plan.candidate.draft
    return (main,) if draft is None else (main, Wanted(draft, plan.pins.draft))


def of_model(
    model: Model, checkpoint: str | None, revision: str | None, *, text_only: bool = False
) -> Wanted:
    """Return the checkpoint of *model* by its id, the official one where none is named."""
    if checkpoint is not None:
        return _wanted(model, _named(model, checkpoint), revision, text_only=text_only)
    official = next((c for c in model.checkpoints if c.official and c.repo is not None), None)
    if official is None:
        raise RequestError(f"{model.name} has no official checkpoint; name one", hint=_some(model))
    return _wanted(model, official, revision, text_only=text_only)


def of_repository(catalog: Catalog, repo: str, revision: str | None, files: str | None) -> Wanted:
    """Return *repo* as the profiles know it, or all of it that an engine reads."""
    known = [
        (model, checkpoint)
        for model in catalog.models.values()
        for checkpoint in model.checkpoints
        if checkpoint.repo is not None and checkpoint.repo.lower() == repo.lower()
    ]
    if files is not None or not known:
        return Wanted(repo, revision, files, _quant(files) if files is not None else None)
    if len(known) == 1:
        return _wanted(*known[0], revision)
    raise RequestError(
        f"{repo} has {len(known)} checkpoints: {_ids(c for _, c in known)}",
        hint=f"--checkpoint {known[0][1].id}, with the model {known[0][0].id}",
    )


def _quant(files: str) -> str:
    """Return a name for what a pattern chooses, so that several of one commit do not mix."""
    folder, slash, rest = files.partition("/")
    if slash and not set(folder) & _SIGNS and rest in ("*", "*.gguf"):
        return _plain(folder)
    # Why a hash: the words of two patterns may be the same, and what they choose another.
    return f"{_plain(files)[:64]}-{sha256(files.encode()).hexdigest()[:8]}".lstrip("-")


def _plain(text: str) -> str:
    text = text.removesuffix(".gguf").removesuffix(".safetensors")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


def _wanted(
    model: Model, checkpoint: Checkpoint, revision: str | None, *, text_only: bool = False
) -> Wanted:
    if checkpoint.repo is None or not checkpoint.exists:
        why = f": {checkpoint.note}" if checkpoint.note else ""
        raise RequestError(f"{checkpoint.id} of {model.name} has no repository{why}")
    gguf = checkpoint.format == "gguf"
    projector = model.vision.projector_file if model.vision is not None else None
    return Wanted(
        repo=checkpoint.repo,
        revision=revision or checkpoint.revision,
        # Why not the pattern of shards: the index knows them better.
        pattern=checkpoint.pattern if gguf else None,
        quant=checkpoint.quant if gguf else None,
        beside=(projector,) if gguf and projector is not None and not text_only else (),
    )


def _named(model: Model, word: str) -> Checkpoint:
    found = next((c for c in model.checkpoints if c.id == word), None)
    if found is None:
        raise RequestError(f"{model.name} has no checkpoint {word!r}", hint=_some(model))
    return found


def _some(model: Model) -> str:
    return f"checkpoints: {_ids(c for c in model.checkpoints if c.repo is not None)}"


def _ids(checkpoints: Iterable[Checkpoint]) -> str:
    return ", ".join(c.id for c in checkpoints)
