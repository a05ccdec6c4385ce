"""`kimideploy stop`: the engine of a deployment stops."""

from __future__ import annotations

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy stop", "kimideploy stop --host root@gpu1 --host root@gpu2"]


@takes(HostOptions, "hosts")
def stop(*, hosts: HostOptions, as_json: JsonOpt = False) -> None:
    """Stop the engine; it starts again at the next boot."""
    from kimideploy.cli.service import told  # noqa: PLC0415

    told("stop", hosts, as_json=as_json)
