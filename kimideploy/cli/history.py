"""`kimideploy history`: the releases of a host, and who did what."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy history", "kimideploy history --host root@gpu1 -n 50"]


@takes(HostOptions, "hosts")
def history(
    *,
    hosts: HostOptions,
    lines: Annotated[int, typer.Option("--lines", "-n", help="of the journal", min=0)] = 20,
    as_json: JsonOpt = False,
) -> None:
    """List the releases of a host, and what was done by whom."""
    from kimideploy.apply.answers import History  # noqa: PLC0415
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415
    from kimideploy.views.hosts import as_json as json_of  # noqa: PLC0415
    from kimideploy.views.hosts import history_table  # noqa: PLC0415

    place = one_place(hosts)
    found = place.ask("history", History, count=lines)
    if as_json:
        sys.stdout.write(json_of(found))
    else:
        out.print(history_table(found))
