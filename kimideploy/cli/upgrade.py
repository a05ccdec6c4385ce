"""`kimideploy upgrade`: what a host was asked for, planned anew with what is known now."""

from __future__ import annotations

from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, ProfilesOpt, takes

EXAMPLES = [
    "kimideploy upgrade --host root@gpu1 --dry-run",
    "kimideploy upgrade --host root@gpu1",
]


@takes(HostOptions, "hosts")
def upgrade(
    *,
    hosts: HostOptions,
    profiles: ProfilesOpt = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would change")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait for somebody else's change")] = 0,
    as_json: JsonOpt = False,
) -> None:
    """Plan a deployment anew with this version's facts, and apply it.

    The request stays as it was; engine, weights and settings may become others.
    """
    from kimideploy.cli.changes import applied, replanned  # noqa: PLC0415
    from kimideploy.cli.hosts import places  # noqa: PLC0415

    where = places(hosts)
    orders = [(place, replanned(place, profiles or [])) for place in where]
    applied(orders, wait=wait, dry_run=dry_run, as_json=as_json)
