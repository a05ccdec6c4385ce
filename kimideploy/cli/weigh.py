"""`kimideploy weigh`: what a checkpoint takes on each GPU, summed from its own headers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.options import JsonOpt, ProfilesOpt

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.planning.types import Layout, Plan, Summed
    from kimideploy.planning.weighing import Weighing
    from kimideploy.weights.checkpoint import Checkpoint

EXAMPLES = [
    "kimideploy weigh moonshotai/Kimi-K2.7-Code --tp 8",
    "kimideploy weigh /srv/models/Kimi-K2.7-Code --tp 8 --pp 2",
    "kimideploy weigh unsloth/Kimi-K2.7-Code-GGUF --files 'UD-Q2_K_XL/*'",
]


def weigh(
    place: Annotated[
        str, typer.Argument(metavar="REPO_OR_FOLDER", help="a repository of the hub, or a folder")
    ],
    *,
    revision: Annotated[str | None, typer.Option(help="a branch, tag or commit")] = None,
    files: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="of several checkpoints, the one to weigh")
    ] = None,
    tp: Annotated[int, typer.Option(min=1, max=1024, help="tensor parallel size")] = 1,
    pp: Annotated[int, typer.Option(min=1, max=64, help="pipeline parallel size")] = 1,
    dp: Annotated[int, typer.Option(min=1, max=1024, help="data parallel size")] = 1,
    ep: Annotated[bool, typer.Option("--ep", help="experts spread whole over all ranks")] = False,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Sum what a checkpoint takes on each GPU, tensor by tensor.

    Only headers are read, over range requests from the hub: some megabytes of 595 GB. HF_TOKEN
    and HF_ENDPOINT are heeded. A model that is no Kimi is refused by the name it gives itself.
    """
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.planning.types import Layout, encode  # noqa: PLC0415

    catalog = load_catalog(user_overlays(profiles or ()))
    found = _read(place, revision, files)
    weighing = weighed(found, Layout(tp=tp, pp=pp, dp=dp, ep=ep), catalog)
    if as_json:
        sys.stdout.write(encode(weighing).decode())
        return
    from kimideploy.views.terminal import terminal  # noqa: PLC0415
    from kimideploy.views.weigh import shown  # noqa: PLC0415

    sys.stdout.write(shown(weighing, terminal(sys.stdout)))


def weighed(found: Checkpoint, layout: Layout, catalog: Catalog) -> Weighing:
    """Return the sums of *found* beside what profiles and config come to."""
    from kimideploy.planning.scale import weigh as weigh_  # noqa: PLC0415

    return weigh_(
        found.tensors,
        layout,
        catalog,
        place=found.place,
        revision=found.revision,
        files=len(found.files),
        size=found.size,
        config=found.config,
    )


def summed_of(plan: Plan, catalog: Catalog) -> Summed:
    """Return the sums of the checkpoint of *plan*, from its folder or its repository."""
    from kimideploy.catalog.find import find_model  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.scale import summed  # noqa: PLC0415

    model = find_model(catalog, plan.request.model)
    checkpoint = next(c for c in model.checkpoints if c.id == plan.candidate.checkpoint)
    place = plan.request.model_path or checkpoint.repo
    if place is None:
        raise RequestError(f"--exact needs a repository, and {checkpoint.id} names none")
    pattern = f"*{checkpoint.quant}*" if checkpoint.quant is not None else None
    found = _read(place, plan.pins.revision, pattern)
    return summed(weighed(found, plan.candidate.layout, catalog))


def _read(word: str, revision: str | None, files: str | None) -> Checkpoint:
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights.checkpoint import read_checkpoint  # noqa: PLC0415
    from kimideploy.weights.places import Folder, Hub, Place  # noqa: PLC0415

    path = Path(word)
    if path.exists() and revision is not None and _local(word):
        raise RequestError(f"--revision is of a repository, and {word} is a folder")
    place: Place = Folder(path) if _local(word) else Hub(word, revision)
    return read_checkpoint(place, files, told=_told)


def _local(word: str) -> bool:
    """A folder that is there, or a word that can only be a path; ORG/NAME else is the hub's."""
    return Path(word).exists() or word.startswith((".", "/", "~")) or word.count("/") != 1


def _told(done: int, count: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == count else ""
        sys.stderr.write(f"\rreading headers: {done} of {count} files{end}")
        sys.stderr.flush()
