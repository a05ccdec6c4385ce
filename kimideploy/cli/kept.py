"""Which folders of weights a word means: a model, a repository, or a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kimideploy.errors import RequestError, WeightsError

if TYPE_CHECKING:
    from kimideploy.weights.manifest import Manifest
    from kimideploy.weights.store import Kept


def kept(
    which: str | None, to: Path | None, revision: str | None = None
) -> list[tuple[Path, Manifest]]:
    """Return the whole folders that *which* names with their manifests; None: all of the store.

    Raises RequestError where nothing of that name is here, or is here more than once.
    """
    from kimideploy.weights.store import every, root  # noqa: PLC0415

    if which is not None and Path(which).exists():
        return [_folder(Path(which))]
    top = root(to)
    names = _names(which)
    found = [
        one
        for one in every(top)
        if (which is None or names & {one.manifest.repo, _quant(one.manifest)})
        and one.manifest.revision.startswith(revision or "")
    ]
    whole = [(one.folder, one.manifest) for one in found if one.complete]
    if not whole:
        raise _absent(which, to, top, found)
    if which is not None and len(whole) > 1 and revision is None:
        some = ", ".join(f"{folder.name[:12]}" for folder, _ in whole)
        raise RequestError(
            f"{which} is here {len(whole)} times: {some}",
            hint=f"--revision {whole[0][0].name[:12]}",
        )
    return whole


def _folder(folder: Path) -> tuple[Path, Manifest]:
    from kimideploy.weights.manifest import read_manifest  # noqa: PLC0415

    if not folder.is_dir():
        raise RequestError(f"{folder} is a file", hint="name the folder it lies in")
    manifest = read_manifest(folder)
    if manifest is None:
        raise WeightsError(
            f"{folder} has no manifest to prove it by",
            hint=f"kimideploy weights verify {shlex.quote(str(folder))} --repo ORG/NAME proves it"
            " against the hub; pull --adopt takes it into the store",
        )
    return folder.absolute(), manifest


def _names(which: str | None) -> set[str]:
    """Return the repositories that a word means: those of a model, or itself."""
    if which is None or "/" in which:
        return {which or ""}
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415

    model = load_catalog(user_overlays()).models.get(which)
    checkpoints = model.checkpoints if model is not None else ()
    return {one.repo for one in checkpoints if one.repo is not None} or {which}


def _quant(manifest: Manifest) -> str:
    return f"{manifest.repo}/{manifest.quant}"


def _absent(which: str | None, to: Path | None, top: Path, begun: list[Kept]) -> RequestError:
    words = f" --to {shlex.quote(str(to))}" if to is not None else ""
    told = f"{which} is not in {top}" if which is not None else f"{top} holds no weights"
    if begun:
        repo = begun[0].manifest.repo
        return RequestError(
            f"{told}: a pull of {repo} has not ended", hint=f"kimideploy pull {repo}{words}"
        )
    return RequestError(told, hint=f"kimideploy weights list{words}")
