"""`kimideploy report`: a plan as one page to read, send and print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.options import takes
from kimideploy.cli.saved import name_of, text_of
from kimideploy.cli.traffic import TrafficOptions

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.planning.bill import Bill
    from kimideploy.planning.types import Launch, Plan

EXAMPLES = [
    "kimideploy plan --hardware 8xH200 --json > plan.json",
    "kimideploy report plan.json -o plan.html",
    "kimideploy plan --hardware 8xH200 --json | kimideploy report - > plan.html",
    "kimideploy report plan.json -o plan.html --tokens-per-day 500M",
]
#: bytes; what a mail program and a phone still open
LARGEST = 1_000_000


@takes(TrafficOptions, name="traffic")
def report(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="a file of `plan --json`; - is stdin")
    ],
    *,
    traffic: TrafficOptions,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="the page to write; - is stdout"),
    ] = None,
    profiles: Annotated[
        list[Path] | None, typer.Option("--profiles", help="a folder of your own profiles")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that differs")] = False,
) -> None:
    """Write a plan as one HTML page.

    The page has its charts in it and asks for nothing: it can be mailed, printed and read on a
    phone. A "no" becomes a page, too.
    """
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if output is None and sys.stdout.isatty():
        raise RequestError(
            "a page of HTML is nothing for a terminal",
            hint=f"kimideploy report {plan} -o {_page_of(plan)}",
        )
    text = _page(plan, profiles or [], traffic)
    if len(text.encode()) > LARGEST:
        raise RequestError(f"the page of {plan} would be larger than {LARGEST:,} bytes")
    if output is None or output == "-":
        sys.stdout.write(text)
        return
    from kimideploy.render.write import write_files  # noqa: PLC0415

    target = Path(output)
    for path in write_files(target.parent, {target.name: text}, force=force):
        sys.stdout.write(f"{path}\n")


def _page(name: str, profiles: list[Path], traffic: TrafficOptions) -> str:
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.planning.saved import decision_from  # noqa: PLC0415
    from kimideploy.planning.types import NoFit  # noqa: PLC0415
    from kimideploy.views.report import page  # noqa: PLC0415

    traffic.traffic()
    decision = decision_from(text_of(name, what=""), name=name_of(name))
    if isinstance(decision, NoFit):
        return page(decision)
    catalog = load_catalog(user_overlays(profiles))
    found = decision if decision.launches else complete(decision, catalog)
    commands = [command(launch) for launch in found.launches]
    return page(found, commands=commands, cost=_cost(found, traffic, catalog))


def _cost(plan: Plan, traffic: TrafficOptions, catalog: Catalog) -> Bill | str:
    """Return the bill, or the reason why a page that asked for none has to do without."""
    from kimideploy.cli.cost import billed  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415

    try:
        return billed(plan, traffic, catalog)
    except RequestError as error:
        if traffic.said():
            raise
        hint = f"; {error.hint}" if error.hint else ""
        return f"There is no chart of costs: {error.message}{hint}."


def command(launch: Launch) -> str:
    """Return *launch* as one shell command, a line for each flag with its values.

    Raises RequestError for a word that no shell can hold.
    """
    from kimideploy.render.quoting import shell_assignment, shell_words  # noqa: PLC0415

    lines = [shell_assignment(name, value) for name, value in launch.env]
    lines += [
        f'{shell_assignment(secret.variable, "")[:-2]}"$(cat {shell_words([secret.file])})"'
        for secret in launch.secrets
    ]
    group: list[str] = []
    for word in launch.argv:
        if word.startswith("--") and group:
            lines.append(shell_words(group))
            group = []
        group.append(word)
    lines.append(shell_words(group))
    return " \\\n".join(f"  {line}" if line.startswith("-") else line for line in lines)


def _page_of(name: str) -> str:
    return f"{Path(name).stem}.html" if name != "-" else "plan.html"
