"""The command line: every command, its help and its examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from kimideploy import __version__
from kimideploy.cli import inspect as inspect_command
from kimideploy.cli import plan as plan_command
from kimideploy.cli import profiles as profiles_command
from kimideploy.cli import render as render_command
from kimideploy.cli import serve as serve_command
from kimideploy.cli.boundary import Boundary

app = typer.Typer(
    name="kimideploy",
    cls=Boundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a bare GPU box to a verified endpoint of Kimi K2.",
    epilog="Start with:  kimideploy serve --rehearse --once",
)


def _epilog(examples: list[str]) -> str:
    """Examples as help shows them: one a line."""
    return "Examples:\n\n" + "\n\n".join(f"$ {example}" for example in examples)


def _add(command: Callable[..., Any], examples: list[str]) -> None:
    app.command(epilog=_epilog(examples))(command)


_add(inspect_command.inspect, inspect_command.EXAMPLES)
_add(plan_command.plan, plan_command.EXAMPLES)
_add(render_command.render, render_command.EXAMPLES)
_add(serve_command.serve, serve_command.EXAMPLES)
app.add_typer(profiles_command.app, name="profiles")


def _version(asked: bool) -> None:  # noqa: FBT001
    if asked:
        sys.stdout.write(f"kimideploy {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code."""
    app()
