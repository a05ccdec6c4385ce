"""`kimideploy inspect`: what this machine is, or was when its facts were saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import takes

if TYPE_CHECKING:
    from kimideploy.facts.types import HostFacts

EXAMPLES = [
    "kimideploy inspect",
    "kimideploy inspect --venv ~/vllm-env",
    "kimideploy inspect --json > facts.json",
    "kimideploy inspect --facts facts.json",
    "kimideploy inspect --host root@gpu1 --json > facts.json",
]


@takes(HostOptions, "hosts")
def inspect(
    *,
    hosts: HostOptions,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", help="show saved facts of any machine instead; - is stdin"),
    ] = None,
    venv: Annotated[
        list[Path] | None,
        typer.Option("--venv", help="a Python environment to look for engines in; repeatable"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the GPUs, memory, disks and engines of this machine, or of one behind --host.

    A host needs a Python 3.8 and nothing else; nothing is installed or left behind there.
    """
    from kimideploy.facts.local import inspect_local, read_facts  # noqa: PLC0415
    from kimideploy.views import inspect as view  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415

    if hosts.host:
        found = _of_host(hosts, venv or [])
    else:
        found = read_facts(facts) if facts is not None else inspect_local(venvs=venv or ())
    if as_json:
        sys.stdout.write(view.as_json(found))
    else:
        out.print(view.as_table(found))


def _of_host(hosts: HostOptions, venvs: list[Path]) -> HostFacts:
    from kimideploy.cli.hosts import access_of  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.remote.address import parse  # noqa: PLC0415
    from kimideploy.remote.connect import connect  # noqa: PLC0415
    from kimideploy.remote.inspect import inspect as inspect_host  # noqa: PLC0415
    from kimideploy.remote.shell import Shell  # noqa: PLC0415

    if len(hosts.host or ()) > 1:
        raise RequestError("inspect shows one host at a time")
    address = parse((hosts.host or [""])[0])
    transport = connect(address, access_of(hosts))
    try:
        return inspect_host(Shell(address, transport), [str(venv) for venv in venvs])
    finally:
        transport.close()
