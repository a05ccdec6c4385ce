"""`kimideploy render`: the files that start a plan, without starting it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = [
    "kimideploy plan --hardware 8xH200 --json > plan.json",
    "kimideploy render shell --plan plan.json",
    "kimideploy render systemd --plan plan.json -o units/",
    "kimideploy plan --hardware 8xH200 --json | kimideploy render env --plan -",
]


def render(
    kind: Annotated[
        Literal["shell", "systemd", "env"],
        typer.Argument(help="launch.sh, a hardened unit, or an environment file"),
    ],
    *,
    plan: Annotated[str, typer.Option("--plan", help="a file of `plan --json`; - is stdin")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the folder to write to")
    ] = None,
    profiles: Annotated[
        list[Path] | None, typer.Option("--profiles", help="a folder of your own profiles")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that differ")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write what a plan's nodes run: one file a node."""
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.saved import name_of, text_of  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.saved import plan_from  # noqa: PLC0415
    from kimideploy.render.files import render as render_files  # noqa: PLC0415
    from kimideploy.render.write import write_files  # noqa: PLC0415

    catalog = load_catalog(user_overlays(profiles or ()))
    found = plan_from(text_of(plan), name=name_of(plan))
    files = render_files(found if found.launches else complete(found, catalog), kind, catalog)
    if output is None and len(files) > 1 and not as_json:
        raise RequestError(
            f"the plan has {len(files)} nodes, so there are {len(files)} files",
            hint=f"kimideploy render {kind} --plan {plan} -o FOLDER",
        )
    written = write_files(output, files, force=force) if output is not None else []
    if as_json:
        document = {"files": files, "written": [str(path) for path in written]}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif output is None:
        sys.stdout.write(next(iter(files.values())))
    else:
        sys.stdout.writelines(f"{path}\n" for path in written)
