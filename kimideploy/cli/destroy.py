"""`kimideploy destroy`: nothing of a deployment is left but the weights."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import takes
from kimideploy.views.terminal import tame

EXAMPLES = [
    "kimideploy destroy --host root@gpu1",
    "kimideploy destroy --host root@gpu1 --weights --yes",
]


@takes(HostOptions, "hosts")
def destroy(
    *,
    hosts: HostOptions,
    weights: Annotated[
        bool, typer.Option("--weights", help="the weights, too; fetching them again takes hours")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Remove a deployment and all of kimideploy from a host, but not the weights."""
    from kimideploy.cli.hosts import confirmed, one_place  # noqa: PLC0415

    place = one_place(hosts)
    kept = "with the weights" if weights else "the weights stay"
    confirmed(f"remove all of kimideploy from {place.name}, {kept}", yes=yes)
    gone = place.ask("destroy", tuple[str, ...], weights=weights)
    sys.stdout.writelines(tame(f"{path}\n") for path in gone)
