"""`kimideploy pull`: a checkpoint's files on this machine, every byte proved."""

from __future__ import annotations

import math
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.completion import checkpoints, models
from kimideploy.cli.options import JsonOpt, ProfilesOpt, folder, rate

if TYPE_CHECKING:
    from kimideploy.weights.resolve import Ways
    from kimideploy.weights.selection import Wanted

EXAMPLES = [
    "kimideploy pull",
    "kimideploy pull kimi-k2.7-code --checkpoint gguf-ud-q2_k_xl",
    "kimideploy pull moonshotai/Kimi-K2.7-Code --to /data/models --max-rate 200MB",
    "kimideploy pull --plan plan.json --adopt /mnt/old/Kimi-K2.7-Code",
    "kimideploy pull --dry-run",
]
_REPO = re.compile(r"[^/\s]+/[^/\s]+")

ToOpt = Annotated[
    Path | None,
    typer.Option(
        "--to",
        metavar="DIR",
        parser=folder,
        help="the folder of all weights  [default: KIMIDEPLOY_MODELS, else the usual one]",
    ),
]
RateOpt = Annotated[
    int | None,
    typer.Option("--max-rate", metavar="SIZE", parser=rate, help="bytes a second, e.g. 200MB"),
]
WorkersOpt = Annotated[
    int, typer.Option("--max-workers", min=1, max=64, help="connections at once")
]
StallOpt = Annotated[
    float,
    typer.Option("--stall-timeout", min=1, max=3600, help="seconds a connection may be silent"),
]
NoXetOpt = Annotated[bool, typer.Option("--no-xet", help="HTTP only")]
OfflineOpt = Annotated[
    bool, typer.Option("--offline", help="send no request; what is not here is an error")
]
AdoptOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--adopt", metavar="DIR", parser=folder, help="a folder to take files from; repeatable"
    ),
]
AcceptOpt = Annotated[
    bool, typer.Option("--accept-code", help="take code that differs from what was accepted")
]
RevisionOpt = Annotated[
    str | None, typer.Option("--revision", metavar="COMMIT", help="a commit, branch or tag")
]
FilesOpt = Annotated[
    str | None,
    typer.Option("--files", metavar="PATTERN", help="of several checkpoints, this one's files"),
]


def pull(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL_OR_REPO",
            autocompletion=models,
            help="a model of `profiles list`, or ORG/NAME of the hub  [default: kimi-k2.7-code]",
        ),
    ] = None,
    *,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="ID",
            autocompletion=checkpoints,
            help="which weights of the model  [default: the official ones]",
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", metavar="FILE", help="what a plan serves from; - is stdin"),
    ] = None,
    revision: RevisionOpt = None,
    files: FilesOpt = None,
    to: ToOpt = None,
    adopt: AdoptOpt = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="leave a GGUF's vision projector out")
    ] = False,
    max_rate: RateOpt = None,
    max_workers: WorkersOpt = 8,
    stall_timeout: StallOpt = 30.0,
    no_xet: NoXetOpt = False,
    offline: OfflineOpt = False,
    accept_code: AcceptOpt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would come")] = False,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Fetch and prove the weights of a model.

    Only what an engine reads, of one commit, every file against the hub's hash. The folder appears
    when it is whole; its path is printed. Whatever ends a pull, the next one goes on from there.
    HF_TOKEN, HF_ENDPOINT and proxies are heeded. The exit code of --dry-run is 1 where it does not
    fit.
    """
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights import wanted as name  # noqa: PLC0415

    catalog = load_catalog(user_overlays(profiles or ()))
    if plan is not None:
        from kimideploy.cli.saved import name_of, text_of  # noqa: PLC0415
        from kimideploy.planning.saved import plan_from  # noqa: PLC0415

        said = {"MODEL_OR_REPO": what, "--checkpoint": checkpoint, "--revision": revision,
                "--files": files}  # fmt: skip
        for flag in (flag for flag, value in said.items() if value is not None):
            raise RequestError(f"{flag} is decided by the plan in {name_of(plan)}")
        found = plan_from(text_of(plan), name=name_of(plan))
        wishes = name.of_plan(found, catalog)
    elif what is not None and _REPO.fullmatch(what):
        if checkpoint is not None:
            raise RequestError(
                "--checkpoint is of a model", hint="--files PATTERN names files of a repository"
            )
        wishes = (name.of_repository(catalog, what, revision, files),)
    else:
        from kimideploy.catalog.find import find_model  # noqa: PLC0415

        if files is not None:
            raise RequestError(
                "--files is of a repository", hint="--checkpoint ID names weights of a model"
            )
        model = find_model(catalog, what or "kimi-k2.7-code")
        wishes = (name.of_model(model, checkpoint, revision, text_only=text_only),)
    options = ways(
        rate=max_rate,
        workers=max_workers,
        stall=stall_timeout,
        xet=not no_xet,
        offline=offline,
        adopt=adopt,
        accept_code=accept_code,
    )
    from kimideploy.weights.store import root  # noqa: PLC0415

    top = root(to)
    if dry_run:
        _tell(wishes, top, options, as_json=as_json)
        return
    _pull(wishes, top, options, as_json=as_json)


def ways(
    *,
    rate: int | None = None,
    workers: int = 8,
    stall: float = 30.0,
    xet: bool = True,
    offline: bool = False,
    adopt: list[Path] | None = None,
    accept_code: bool = False,
) -> Ways:
    """Return how a pull is done as the options say; --offline adds to HF_HUB_OFFLINE."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights import hub  # noqa: PLC0415
    from kimideploy.weights.resolve import Ways  # noqa: PLC0415

    folders = tuple(named.absolute() for named in adopt or ())
    for named in folders:
        if not named.is_dir():
            raise RequestError(f"--adopt {named} is no folder")
    if not math.isfinite(stall):
        raise RequestError(f"--stall-timeout {stall} is no time")
    return Ways(
        workers=workers,
        rate=rate,
        stall=stall,
        xet=xet,
        offline=offline or hub.offline(),
        adopt=folders,
        accept_code=accept_code,
    )


def _pull(wishes: tuple[Wanted, ...], top: Path, ways: Ways, *, as_json: bool) -> None:
    from kimideploy.apply.interrupts import interrupts  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.pull import shown  # noqa: PLC0415
    from kimideploy.weights.pull import pull_all  # noqa: PLC0415

    try:
        with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
            caught.allow()
            pull_all(wishes, top, ways, tell)
    except KeyboardInterrupt:
        # Why suppressed: it may be the reader of this who has gone.
        with suppress(OSError):
            if not as_json:
                sys.stderr.write("stopped; what came is kept, the same command goes on\n")
        raise


def _tell(wishes: tuple[Wanted, ...], top: Path, ways: Ways, *, as_json: bool) -> None:
    from kimideploy.planning.types import encode  # noqa: PLC0415
    from kimideploy.views.console import err  # noqa: PLC0415
    from kimideploy.views.pull import Lines  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415
    from kimideploy.views.weights import foreseen  # noqa: PLC0415
    from kimideploy.weights.forecast import foresee  # noqa: PLC0415

    short = 0
    for wanted in wishes:
        found = foresee(wanted, top, ways, Lines(err, err).take)
        short += found.short
        text = encode(found).decode() if as_json else foreseen(found, terminal(sys.stdout))
        sys.stdout.write(text)
    if short:
        raise typer.Exit(1)
