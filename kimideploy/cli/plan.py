"""`kimideploy plan`: what to run on a machine, why, and what it takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.options import PlanOptions, takes

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.cli.config import Config
    from kimideploy.planning.types import Decision, Inventory

EXAMPLES = [
    "kimideploy plan --hardware 8xH200",
    "kimideploy plan --hardware 1xRTX4090+384GiB --cores 32",
    "kimideploy plan --hardware 8xA100-80GB --tier int4-a100",
    "kimideploy plan --facts facts.json --json > plan.json",
    "kimideploy plan --hardware 8xH200 --goal throughput --context 128k",
]


@takes(PlanOptions)
def plan(
    *,
    options: PlanOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write the plan's JSON to a file")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="show every rejected candidate")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say how, or whether, a machine can serve the model."""
    from kimideploy.planning.types import NoFit, encode  # noqa: PLC0415

    decision, catalog = decide_from_options(options)
    if output is not None:
        write(output, encode(decision))
    if as_json:
        sys.stdout.buffer.write(encode(decision))
    elif output is None:
        from kimideploy.views import plan as view  # noqa: PLC0415
        from kimideploy.views.console import out  # noqa: PLC0415

        out.print(view.shown(decision, catalog, every=every))
    else:
        sys.stdout.write(f"{output}\n")
    if isinstance(decision, NoFit):
        raise typer.Exit(1)


def decide_from_options(options: PlanOptions) -> tuple[Decision, Catalog]:
    """Return the decision, its launches included, and the catalog it was made with."""
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.config import read_config, request_from  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.planning.decide import decide  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415

    config, source = read_config(options.config)
    if source is not None:
        sys.stderr.write(f"options from {source}\n")
    own = options.profiles or [Path(name) for name in config.profiles]
    catalog = load_catalog(user_overlays(own))
    request = request_from(options, config.request)
    decision = decide(request, inventory_from(options, config, catalog), catalog)
    return (complete(decision, catalog) if isinstance(decision, Plan) else decision), catalog


def inventory_from(options: PlanOptions, config: Config, catalog: Catalog) -> Inventory:
    """Return the machine that was named, the saved facts, or this very machine."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.facts.hardware import parse_hardware  # noqa: PLC0415
    from kimideploy.planning.inventory import (  # noqa: PLC0415
        inventory_from_facts,
        inventory_from_hardware,
    )

    facts = options.facts or [Path(name) for name in config.facts]
    hardware = options.hardware or (config.hardware if not options.facts else None)
    if options.hardware is not None and options.facts:
        raise RequestError("--hardware and --facts both name a machine; give one of them")
    if hardware is not None:
        return inventory_from_hardware(
            parse_hardware(hardware),
            catalog,
            ram=_size("--ram", options.ram or config.ram),
            cores=options.cores or config.cores,
            numa=options.numa or config.numa,
            disk=_size("--disk", options.disk or config.disk),
        )
    given = [
        flag
        for flag, value in (
            ("--ram", options.ram),
            ("--cores", options.cores),
            ("--numa", options.numa),
            ("--disk", options.disk),
        )
        if value is not None
    ]
    if given:
        raise RequestError(
            f"{given[0]} describes a machine named by --hardware; facts have it already"
        )
    from kimideploy.facts.local import inspect_local, read_facts  # noqa: PLC0415

    found = [read_facts(path) for path in facts] if facts else [inspect_local()]
    return inventory_from_facts(found, catalog)


def write(path: Path, content: bytes) -> None:
    """Write *content* to *path* whole or not at all."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RequestError(f"{path} can't be written: {error}") from error


def _size(flag: str, text: str | None) -> int | None:
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.facts.hardware import MOST_RAM  # noqa: PLC0415
    from kimideploy.quantities import parse_bytes  # noqa: PLC0415

    if text is None:
        return None
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise RequestError(f"{flag}: {error}") from error
    if not 0 < size <= MOST_RAM:
        raise RequestError(f"{flag} {text!r} is no size of a real machine")
    return size
