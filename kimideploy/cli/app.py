"""The command line: one table of commands, each loaded when it is asked for."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimideploy import __version__
from kimideploy.cli.boundary import Boundary
from kimideploy.cli.help import examples

if TYPE_CHECKING:
    from typer.core import TyperCommand, TyperGroup

#: name → what it does: the first line of the command's own docstring, and a test says so
COMMANDS = {
    "inspect": "Show the GPUs, memory, disks and engines of this machine, or of one behind --host.",
    "plan": "Decide how, or whether, a model fits the hardware.",
    "cost": "Say what a traffic costs on a machine of your own, and by the API.",
    "advise": "Say whether the API, your own machine or another model is the choice, and why.",
    "doctor": "Judge a machine against a plan, or say what a log shows of a failure.",
    "render": "Write what a plan's nodes run: one file a node.",
    "report": "Write a plan as one HTML page.",
    "serve": "Serve a model here until Ctrl-C, or on hosts for good.",
    "status": "Show how a deployment stands: unit, release, GPUs, load, troubles.",
    "logs": "Show what the engine said.",
    "stop": "Stop the engine; it starts again at the next boot.",
    "start": "Start the engine that was stopped.",
    "restart": "Stop the engine, and start it again.",
    "attach": "Show a change of a host from its beginning until it ends.",
    "upgrade": "Plan a deployment anew with this version's facts, and apply it.",
    "rollback": "Return to a release that was proved before; it is proved again.",
    "history": "List the releases of a host, and what was done by whom.",
    "diff": "Show how two releases differ, in the engine's words and the unit.",
    "lock": "Show, take and break the lock of a host.",
    "destroy": "Remove a deployment and all of kimideploy from a host, but not the weights.",
    "pull": "Fetch and prove the weights of a model.",
    "weights": "List, verify, bundle and remove the weights on this machine.",
    "weigh": "Sum what a checkpoint takes on each GPU, tensor by tensor.",
    "verify": "Ask an endpoint for what it promises, and judge the answers.",
    "client": "Print a client's configuration, or write it, with the right field and sampling.",
    "audit": "Lead a tool loop through a proxy or framework, and say what became of each field.",
    "guard": "Serve one door to an engine: allowed paths, keys, limits, and the reasoning kept.",
    "profiles": "Show and check the facts that plans are made from.",
}
#: what a host is asked, and asks itself; people are not shown it
HIDDEN = ("host",)
EXAMPLES = [
    "kimideploy plan --hardware 8xH200",
    "kimideploy plan --hardware 2x8xH100-80GB --json > plan.json",
    "kimideploy render systemd --plan plan.json -o units/",
    "kimideploy serve --rehearse",
]


def main() -> None:
    """Run `kimideploy` with the words of this process, and end with an exit code."""
    _speak_plainly()
    typer.main.get_command(app)(prog_name="kimideploy")


def _speak_plainly() -> None:
    """Data in a pipe is UTF-8; a terminal that can't show a letter gets another one."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


class Root(Boundary):
    """The root group: knows its commands by name and imports one when it is run."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return the command, loaded; None for a name that is none."""
        return load(cmd_name) if cmd_name in COMMANDS or cmd_name in HIDDEN else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of *args*; a name that is none is refused with the nearest one."""
        if args[0] not in (*COMMANDS, *HIDDEN) and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415

            near = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(
                f"no such command {args[0]!r}" + (f"; did you mean `{near[0]}`?" if near else "")
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the table as it stands; nothing is loaded for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def load(name: str) -> TyperCommand | TyperGroup:
    """Return the command *name* from its own module.

    The module has a function of that name, or an `app` with a class or commands of its own; its
    EXAMPLES stand at the end of its help.
    """
    from importlib import import_module  # noqa: PLC0415

    module = import_module(f"kimideploy.cli.{name}")
    group: typer.Typer | None = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, rich_markup_mode=None)
        group.command(name)(getattr(module, name))
    command: Any = typer.main.get_command(group)
    command.name = name
    command.epilog = examples(module.EXAMPLES)
    return command  # type: ignore[no-any-return]


app = typer.Typer(
    name="kimideploy",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(EXAMPLES),
)


def _version(asked: bool) -> None:  # noqa: FBT001  Typer calls it
    if asked:
        typer.echo(f"kimideploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """From a bare GPU box to a verified endpoint of Kimi K2."""
