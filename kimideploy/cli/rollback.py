"""`kimideploy rollback`: return to a release that was proved before."""

from __future__ import annotations

from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy rollback --host root@gpu1", "kimideploy rollback 3 --host root@gpu1"]


@takes(HostOptions, "hosts")
def rollback(
    release: Annotated[
        int | None, typer.Argument(help="its number  [default: the one before the current]")
    ] = None,
    *,
    hosts: HostOptions,
    wait: Annotated[float, typer.Option(help="seconds to wait for somebody else's change")] = 0,
    as_json: JsonOpt = False,
) -> None:
    """Return to a release that was proved before; it is proved again."""
    from kimideploy.apply.answers import Begun  # noqa: PLC0415
    from kimideploy.cli.changes import begun_on  # noqa: PLC0415
    from kimideploy.cli.hosts import places  # noqa: PLC0415

    begun_on(
        places(hosts),
        lambda place: place.ask("back", Begun, release=release, wait=wait),
        as_json=as_json,
    )
