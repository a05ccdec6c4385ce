"""`kimideploy profiles`: the facts that plans are made from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kimideploy.cli.help import examples
from kimideploy.cli.options import JsonOpt, ProfilesOpt

EXAMPLES = [
    "kimideploy profiles list gpus",
    "kimideploy profiles show h200",
    "kimideploy profiles check ./my-profiles",
]
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show and check the facts that plans are made from.",
)
Kind = Literal["models", "gpus", "engines", "tiers"]


@app.command(
    "list",
    epilog=examples(["kimideploy profiles list", "kimideploy profiles list gpus --json"]),
)
def list_profiles(
    kind: Annotated[Kind | None, typer.Argument(help="one kind only")] = None,
    *,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """List the models, GPUs, engines and tiers."""
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.views import profiles as view  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    rows = view.rows(load_catalog(user_overlays(profiles or ())), kind)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(view.tables(rows, terminal(sys.stdout)))


@app.command(
    epilog=examples(
        ["kimideploy profiles show kimi-k2.7-code", "kimideploy profiles show h200 --json"]
    ),
)
def show(
    name: Annotated[
        str, typer.Argument(help="an id of `profiles list`, a repo or another name of it")
    ],
    *,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Show one profile with the source of each number."""
    from kimideploy.catalog.find import find_profile  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.views import profiles as view  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    found = find_profile(load_catalog(user_overlays(profiles or ())), name)
    if as_json:
        sys.stdout.write(view.as_json(found))
    else:
        sys.stdout.write(view.shown(found, terminal(sys.stdout)))


@app.command(
    epilog=examples(["kimideploy profiles check", "kimideploy profiles check ./my-profiles"]),
)
def check(
    folder: Annotated[Path | None, typer.Argument(help="a folder of your own profiles")] = None,
) -> None:
    """Check profiles and everything they refer to.

    Without a folder: the shipped ones and your own. Each fault is told as FILE:LINE:COLUMN.
    """
    from kimideploy.catalog.load import check_catalog, user_overlays  # noqa: PLC0415

    overlays = user_overlays([folder] if folder is not None else [])
    count = check_catalog(overlays)
    sys.stdout.write(f"{count} files, all well\n")
