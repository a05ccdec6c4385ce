"""`kimideploy host`: what the laptop says to a host, and what the host says to itself.

Requests come as JSON on stdin, answers go as JSON to stdout. People use the commands around it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from kimideploy.apply.home import Home

EXAMPLES = ["kimideploy host status < /dev/null"]
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="What the laptop asks of a host; for programs.",
)


@app.command()
def run(
    number: int, *, scope: Annotated[Literal["system", "user"], typer.Option()] = "system"
) -> None:
    """Run the engine of a release under systemd, and say how it stands."""
    from kimideploy.apply.home import home  # noqa: PLC0415
    from kimideploy.apply.supervise import of_release  # noqa: PLC0415

    raise typer.Exit(of_release(home(scope), number))


@app.command()
def carry(
    run: str,
    *,
    wait: Annotated[float, typer.Option()] = 0,
    alone: Annotated[bool, typer.Option("--alone")] = False,
) -> None:
    """Carry out a run, as a unit of its own."""
    from kimideploy.apply.carry import carry as carried  # noqa: PLC0415

    raise typer.Exit(carried(_home(), run, wait=wait, alone=alone))


@app.command()
def share(
    folders: list[Path],
    *,
    address: Annotated[str, typer.Option()],
    port: Annotated[int, typer.Option()],
    token_file: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Give weights to other nodes, as a unit of its own."""
    from kimideploy.apply.peer import serve  # noqa: PLC0415

    serve(folders, address, port, token_file)


@app.command()
def settle() -> None:
    """Finish a change that was left alone, or take it back: the dead man's work."""
    from kimideploy.apply.carry import settle as settled  # noqa: PLC0415

    settled(_home())


@app.command()
def follow(
    run: str,
    *,
    skip: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="errors as JSON, too")] = False,
) -> None:
    """Print the events of a run as they come, until it has ended."""
    del as_json
    from kimideploy.apply.clock import SystemClock  # noqa: PLC0415
    from kimideploy.apply.runs import follow as lines  # noqa: PLC0415
    from kimideploy.apply.runs import newest  # noqa: PLC0415

    home = _home()
    run = run if run != "newest" else newest(home)
    for line in lines(home, run, SystemClock(), skip=skip):
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


@app.command()
def ask(
    verb: str,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="errors as JSON, too")] = False,
) -> None:
    """Answer one request: VERB's arguments are a JSON object on stdin."""
    del as_json  # the error boundary reads it
    from kimideploy.apply.answer import answer  # noqa: PLC0415

    sys.stdout.buffer.write(answer(_home(), verb, sys.stdin.buffer.read()) + b"\n")


def _home() -> Home:
    from kimideploy.apply.home import home  # noqa: PLC0415

    return home()
