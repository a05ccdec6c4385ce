"""`kimideploy attach`: watch a change that goes on without you."""

from __future__ import annotations

from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy attach --host root@gpu1", "kimideploy attach --host root@gpu1 --json"]


@takes(HostOptions, "hosts")
def attach(
    *,
    hosts: HostOptions,
    run: Annotated[str, typer.Option(help="which change  [default: the newest]")] = "newest",
    as_json: JsonOpt = False,
) -> None:
    """Show a change of a host from its beginning until it ends.

    The change goes on whether somebody watches or not; Ctrl-C leaves it alone.
    """
    from kimideploy.cli.changes import watched  # noqa: PLC0415
    from kimideploy.cli.hosts import places  # noqa: PLC0415

    watched([(place, run) for place in places(hosts)], as_json=as_json)
