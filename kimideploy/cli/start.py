"""`kimideploy start`: the engine of a deployment starts."""

from __future__ import annotations

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes

EXAMPLES = ["kimideploy start", "kimideploy start --host root@gpu1 --host root@gpu2"]


@takes(HostOptions, "hosts")
def start(*, hosts: HostOptions, as_json: JsonOpt = False) -> None:
    """Start the engine that was stopped."""
    from kimideploy.cli.service import told  # noqa: PLC0415

    told("start", hosts, as_json=as_json)
