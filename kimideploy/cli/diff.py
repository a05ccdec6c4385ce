"""`kimideploy diff`: how two releases differ, or a host from its release."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import takes
from kimideploy.views.terminal import tame

EXAMPLES = [
    "kimideploy diff --host root@gpu1",
    "kimideploy diff 3 --host root@gpu1",
    "kimideploy diff 3 5 --host root@gpu1",
]


@takes(HostOptions, "hosts")
def diff(
    old: Annotated[
        int | None, typer.Argument(help="a release  [default: what is on the host now]")
    ] = None,
    new: Annotated[int | None, typer.Argument(help="another  [default: the current one]")] = None,
    *,
    hosts: HostOptions,
) -> None:
    """Show how two releases differ, in the engine's words and the unit.

    The exit code is 1 when they differ.
    """
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415

    said = one_place(hosts).ask("diff", str, release=old, other=new)
    if said:
        sys.stdout.write(tame(f"{said}\n"))
        raise typer.Exit(1)
