"""`kimideploy logs`: what the engine said, from the host's journal."""

from __future__ import annotations

from typing import Annotated

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import takes

EXAMPLES = [
    "kimideploy logs",
    "kimideploy logs --host root@gpu1 -f",
    "kimideploy logs --host root@gpu1 --since '1 hour ago' -n 1000",
]


@takes(HostOptions, "hosts")
def logs(
    *,
    hosts: HostOptions,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as lines come")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="how many", min=0)] = 100,
    since: Annotated[
        str | None, typer.Option(help="as journalctl reads it: '1 hour ago', '2026-11-25 09:00'")
    ] = None,
) -> None:
    """Show what the engine said."""
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415

    place = one_place(hosts)
    words = ["journalctl", "--no-pager", "--quiet", "--unit=kimideploy.service"]
    if place.ask("scope", str) == "user":
        words[1:1] = ["--user"]
    words += [f"--lines={lines}", "--output=short-iso"]
    words += [f"--since={since}"] if since is not None else []
    words += ["--follow"] if follow else []
    status = place.print(words)
    if status != 0:
        raise typer.Exit(3)
