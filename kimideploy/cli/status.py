"""`kimideploy status`: how deployments stand."""

from __future__ import annotations

import sys

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = [
    "kimideploy status",
    "kimideploy status --host root@gpu1",
    "kimideploy status --host root@gpu1 --host root@gpu2 --json",
]


@takes(HostOptions, "hosts")
def status(*, hosts: HostOptions, as_json: JsonOpt = False) -> None:
    """Show how a deployment stands: unit, release, GPUs, load, troubles.

    The exit code is 0 when every host serves, and 1 when one does not.
    """
    from kimideploy.apply.answers import Status  # noqa: PLC0415
    from kimideploy.cli.hosts import places  # noqa: PLC0415
    from kimideploy.errors import KimiError  # noqa: PLC0415
    from kimideploy.remote.places import each  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415
    from kimideploy.views.hosts import as_json as json_of  # noqa: PLC0415
    from kimideploy.views.hosts import status_table  # noqa: PLC0415

    where = places(hosts)
    found = each(where, lambda place: place.ask("status", Status))
    for one in found:
        if isinstance(one, KimiError):
            raise one
    stands = [one for one in found if isinstance(one, Status)]
    if as_json:
        named = zip(where, stands, strict=True)
        sys.stdout.write(json_of({place.name: one for place, one in named}))
    else:
        for place, one in zip(where, stands, strict=True):
            out.print(status_table(place.name, one))
    if not all(one.serves for one in stands):
        raise typer.Exit(1)
