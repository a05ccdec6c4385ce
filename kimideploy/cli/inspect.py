"""`kimideploy inspect`: what this machine is, or was when its facts were saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = [
    "kimideploy inspect",
    "kimideploy inspect --venv ~/vllm-env",
    "kimideploy inspect --json > facts.json",
    "kimideploy inspect --facts facts.json",
]


def inspect(
    *,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", help="show saved facts of any machine instead; - is stdin"),
    ] = None,
    venv: Annotated[
        list[Path] | None,
        typer.Option("--venv", help="a Python environment to look for engines in; repeatable"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the GPUs, memory, disks and engines of this machine."""
    from kimideploy.facts.local import inspect_local, read_facts  # noqa: PLC0415
    from kimideploy.views import inspect as view  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415

    found = read_facts(facts) if facts is not None else inspect_local(venvs=venv or ())
    if as_json:
        sys.stdout.write(view.as_json(found))
    else:
        out.print(view.as_table(found))
