"""`kimideploy lock`: who changes a host now, and keeping others from it."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from kimideploy.cli.help import examples
from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, takes
from kimideploy.views.terminal import tame

EXAMPLES = [
    "kimideploy lock show --host root@gpu1",
    "kimideploy lock hold --for 2h --why benchmarks --host root@gpu1",
    "kimideploy lock break --host root@gpu1",
]
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show, take and break the lock of a host.",
)
_TIME = re.compile(r"([0-9]{1,6})([smhd])")
_SCALE = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> float:
    """Return the seconds that *text* names: 90s, 30m, 2h, 1d."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time such as 30m or 2h")
    return float(found[1]) * _SCALE[found[2]]


@app.command(epilog=examples(["kimideploy lock show --host root@gpu1"]))
@takes(HostOptions, "hosts")
def show(*, hosts: HostOptions, as_json: JsonOpt = False) -> None:
    """Show who changes a host now, or keeps others from it."""
    from kimideploy.apply.answers import Holder  # noqa: PLC0415
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415
    from kimideploy.views.hosts import as_json as json_of  # noqa: PLC0415
    from kimideploy.views.hosts import holder_line  # noqa: PLC0415

    found = one_place(hosts).ask("holder", Holder | None)  # type: ignore[arg-type]
    sys.stdout.write(json_of(found) if as_json else f"{holder_line(found)}\n")


@app.command(epilog=examples(["kimideploy lock hold --for 2h --why benchmarks --host root@gpu1"]))
@takes(HostOptions, "hosts")
def hold(
    *,
    hosts: HostOptions,
    how_long: Annotated[
        float, typer.Option("--for", metavar="TIME", parser=seconds, help="30m, 2h, 1d")
    ],
    why: Annotated[str, typer.Option(help="what others are told")] = "no reason was given",
) -> None:
    """Keep everybody else from changing a host for a while."""
    from kimideploy.apply.answers import Holder  # noqa: PLC0415
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415
    from kimideploy.views.hosts import holder_line  # noqa: PLC0415

    found = one_place(hosts).ask("hold", Holder, seconds=how_long, why=why)
    sys.stdout.write(f"{holder_line(found)}\n")


@app.command("break", epilog=examples(["kimideploy lock break --host root@gpu1 --force"]))
@takes(HostOptions, "hosts")
def break_(
    *,
    hosts: HostOptions,
    force: Annotated[
        bool, typer.Option("--force", help="end a change that is under way, too")
    ] = False,
) -> None:
    """End somebody's hold of a host, or, with --force, their change."""
    from kimideploy.apply.answers import Holder  # noqa: PLC0415
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415

    found = one_place(hosts).ask("break", Holder | None, force=force)  # type: ignore[arg-type]
    said = "nobody held it" if found is None else f"ended: {found.who}, {found.why}"
    sys.stdout.write(tame(f"{said}\n"))
