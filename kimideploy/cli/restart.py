"""`kimideploy restart`: the engine of a deployment restarts."""

from __future__ import annotations

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy restart", "kimideploy restart --host root@gpu1 --host root@gpu2"]


@takes(HostOptions, "hosts")
def restart(*, hosts: HostOptions, as_json: JsonOpt = False) -> None:
    """Stop the engine, and start it again."""
    from kimideploy.cli.service import told  # noqa: PLC0415

    told("restart", hosts, as_json=as_json)
