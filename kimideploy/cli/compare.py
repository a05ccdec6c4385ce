"""`kimideploy plan compare`: two machines or two saved plans side by side."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.completion import hardware_words
from kimideploy.cli.options import JsonOpt, PlanOptions, takes

if TYPE_CHECKING:
    from kimideploy.planning.comparison import Side

EXAMPLES = [
    "kimideploy plan compare 8xH200 4xB300",
    "kimideploy plan compare 2x8xH100-80GB 8xH200 --goal throughput",
    "kimideploy plan compare plan.json 8xMI300X --json",
]


@takes(PlanOptions)
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="hardware such as 8xH200, or a file", autocompletion=hardware_words
        ),
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help="the other one", autocompletion=hardware_words)
    ],
    *,
    options: PlanOptions,
    as_json: JsonOpt = False,
) -> None:
    """Show two machines, or two saved plans, side by side.

    Numbers come with their ranges, * marks the better one, and what lies within each other's
    range is too close to tell. The exit code is 1 when neither holds the model.
    """
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.compare import compare as compared  # noqa: PLC0415
    from kimideploy.planning.types import NoFit, encode  # noqa: PLC0415

    for flag in ("hardware", "facts"):
        if getattr(options, flag):
            raise RequestError(
                f"--{flag} names a machine, and so do A and B",
                hint=f"kimideploy plan compare {a} {b}",
            )
    found = compared(_side(a, options), _side(b, options))
    if as_json:
        sys.stdout.write(encode(found).decode())
    else:
        from kimideploy.views.compare import shown  # noqa: PLC0415
        from kimideploy.views.terminal import terminal  # noqa: PLC0415

        sys.stdout.write(shown(found, terminal(sys.stdout)))
    if all(isinstance(side.decision, NoFit) for side in (found.a, found.b)):
        raise typer.Exit(1)


def _side(word: str, options: PlanOptions) -> Side:
    from kimideploy.cli.cost import billed, decided  # noqa: PLC0415
    from kimideploy.cli.traffic import TrafficOptions  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.comparison import Side  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415

    file = word == "-" or word.endswith(".json") or Path(word).is_file()
    wishes = options if file else dataclasses.replace(options, hardware=word)
    decision, catalog = decided(wishes, word if file else None)
    bill = None
    if isinstance(decision, Plan):
        try:
            bill = billed(decision, TrafficOptions(), catalog)
        except RequestError:
            # Why: nobody asked for prices; what is not known is shown as unknown.
            bill = None
    return Side(word if word != "-" else "stdin", decision, bill)
