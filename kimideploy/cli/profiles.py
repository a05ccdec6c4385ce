"""`kimideploy profiles`: the facts that plans are made from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kimideploy.cli.help import examples

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
ProfilesOption = Annotated[
    list[Path] | None, typer.Option("--profiles", help="a folder of your own profiles")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@app.command(
    "list",
    epilog=examples(["kimideploy profiles list", "kimideploy profiles list gpus --json"]),
)
def list_profiles(
    kind: Annotated[Kind | None, typer.Argument(help="one kind only")] = None,
    *,
    profiles: ProfilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, GPUs, engines and tiers."""
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.views import profiles as view  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415

    rows = view.rows(load_catalog(user_overlays(profiles or ())), kind)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        out.print(view.tables(rows))


@app.command(
    epilog=examples(
        ["kimideploy profiles show kimi-k2.7-code", "kimideploy profiles show h200 --json"]
    ),
)
def show(
    name: Annotated[str, typer.Argument(help="an id of `profiles list`, or a GPU's alias")],
    *,
    profiles: ProfilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one profile with the source of each number."""
    from kimideploy.catalog.find import find_profile  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.views import profiles as view  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415

    found = find_profile(load_catalog(user_overlays(profiles or ())), name)
    plain: dict[str, Any] = view.plain(found)
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
    else:
        out.print(view.profile(plain))


@app.command(
    epilog=examples(["kimideploy profiles check", "kimideploy profiles check ./my-profiles"]),
)
def check(
    folder: Annotated[Path | None, typer.Argument(help="a folder of your own profiles")] = None,
) -> None:
    """Check profiles and everything they refer to."""
    from kimideploy.catalog.load import check_catalog, user_overlays  # noqa: PLC0415

    overlays = user_overlays([folder] if folder is not None else [])
    count = check_catalog(overlays)
    sys.stdout.write(f"{count} files, all well\n")
