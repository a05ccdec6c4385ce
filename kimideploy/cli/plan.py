"""`kimideploy plan`: how, or whether, a model fits the hardware."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from kimideploy.catalog.load import load_catalog, user_overlays
from kimideploy.catalog.types import Catalog
from kimideploy.cli.compare import EXAMPLES as COMPARED
from kimideploy.cli.compare import compare
from kimideploy.cli.config import MACHINE, Config, read_config
from kimideploy.cli.help import examples
from kimideploy.cli.options import JsonOpt, PlanOptions, takes
from kimideploy.engines import complete
from kimideploy.engines.site import LOOPBACK
from kimideploy.errors import RequestError
from kimideploy.facts.hardware import MOST_RAM, parse_hardware
from kimideploy.facts.types import HostFacts
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_facts, inventory_from_hardware
from kimideploy.planning.types import Decision, Inventory, NoFit, Plan, Request, encode

#: what is rehearsed where nobody names a machine and this one can't serve the model
REHEARSED = "8xH200"
EXAMPLES = [
    "kimideploy plan --hardware 8xH200",
    "kimideploy plan --hardware 8xA100-80GB --tier int4-a100",
    "kimideploy plan --hardware 1xRTX4090+384GiB --cores 32",
    "kimideploy plan --facts node0.json --facts node1.json --context 128k",
    "kimideploy plan --hardware 8xH200 --curve",
    "kimideploy plan --hardware 8xH200 --pin --json > plan.json",
    "kimideploy plan compare 8xH200 4xB300",
]
#: what describes the machine of --hardware, and the most that a real node has of it
_SIZES = {"ram": MOST_RAM, "cores": 1 << 16, "numa": 1 << 10, "disk": 1 << 60}


#: Why an app of its own: `plan compare` is a command inside `plan`
app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)
app.command("compare", epilog=examples(COMPARED))(compare)


@app.callback()
@takes(PlanOptions)
def plan(
    ctx: typer.Context,
    *,
    options: PlanOptions,
    curve: Annotated[
        bool, typer.Option("--curve", help="show speed over users and context instead")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="list every rejected candidate and every node's command")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="sum the weights from the checkpoint's own headers, too")
    ] = False,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="ask the hub for the commit and the code's hashes, and pin them"
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="write the decision's JSON there too"),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Decide how, or whether, a model fits the hardware.

    Without --hardware and --facts it looks at this machine.
    The exit code is 0 for a plan and 1 when nothing fits.
    """
    if ctx.invoked_subcommand is not None:
        if options.said():
            raise RequestError(
                "options of the plans that are compared stand after `compare`",
                hint="kimideploy plan compare 8xH200 4xB300 --goal throughput",
            )
        return
    from kimideploy.views.plan import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    decision, catalog = decide_from_options(options)
    if pin and isinstance(decision, Plan):
        decision = _pinned(decision, catalog)
    if exact and isinstance(decision, Plan):
        from kimideploy.cli.weigh import summed_of  # noqa: PLC0415

        decision = msgspec.structs.replace(decision, summed=summed_of(decision, catalog))
    document = encode(decision).decode()
    if output is not None:
        from kimideploy.render.write import write_files  # noqa: PLC0415

        write_files(output.parent, {output.name: document}, force=True)
    if as_json:
        sys.stdout.write(document)
    elif curve and isinstance(decision, Plan):
        from kimideploy.views.speed import table  # noqa: PLC0415

        sys.stdout.write(table(decision, terminal(sys.stdout)))
    else:
        sys.stdout.write(shown(decision, terminal(sys.stdout), every=every))
    if isinstance(decision, NoFit):
        raise typer.Exit(1)


def _pinned(found: Plan, catalog: Catalog) -> Plan:
    """Return *found* with the commits of its weights and the hashes of their code."""
    from kimideploy.views.console import err  # noqa: PLC0415
    from kimideploy.views.pull import Lines  # noqa: PLC0415
    from kimideploy.weights.resolve import Ways, pinned  # noqa: PLC0415
    from kimideploy.weights.wanted import of_plan  # noqa: PLC0415

    if found.request.model_path is not None:
        raise RequestError(
            f"--pin asks the hub, and --model-path {found.request.model_path} is a folder",
            hint="kimideploy weights verify FOLDER --repo ORG/NAME proves a folder",
        )
    tell = Lines(err, err).take
    (revision, code), *draft = [pinned(wanted, Ways(), tell) for wanted in of_plan(found, catalog)]
    pins = msgspec.structs.replace(
        found.pins, revision=revision, code=code, draft=draft[0][0] if draft else None
    )
    warnings = tuple(notice for notice in found.warnings if notice.code != "unpinned")
    return complete(msgspec.structs.replace(found, pins=pins, warnings=warnings), catalog)


def decide_from_options(
    options: PlanOptions, found: Sequence[HostFacts] | None = None
) -> tuple[Decision, Catalog]:
    """Return the decision, a Plan with its launches, and the catalog it was made with.

    Raises RequestError for an option that is wrong. It reads kimideploy.yaml where there is one,
    and looks at this machine when no other is named and no facts were *found* elsewhere; what it
    saw is said on stderr.
    """
    config = _config(options)
    if config.bind not in LOOPBACK:
        raise RequestError(
            f"--bind {config.bind} would open the engine to the network",
            hint="leave --bind out: the engine listens on 127.0.0.1; reach it by an SSH tunnel"
            " or a proxy that asks for a key",
        )
    overlays = user_overlays([Path(folder) for folder in config.profiles])
    catalog = load_catalog(overlays)
    if found is not None:
        inventory = inventory_from_facts(found, catalog)
    else:
        inventory = _inventory(config, catalog)
    for note in inventory.notes:
        sys.stderr.write(f"note: {note}\n")
    wanted = {name: getattr(config, name) for name in Request.__struct_fields__}
    decision = decide(Request(**wanted), inventory, catalog)
    if isinstance(decision, Plan):
        return complete(decision, catalog), catalog
    return decision, catalog


def refuse(decision: NoFit, *, as_json: bool) -> NoReturn:
    """Show why nothing can be served, as `plan` does; the answer is no."""
    from kimideploy.views.plan import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    text = encode(decision).decode() if as_json else shown(decision, terminal(sys.stdout))
    sys.stdout.write(text)
    raise typer.Exit(1)


def _config(options: PlanOptions) -> Config:
    """Return the file's options with the flags over them."""
    file, path = read_config(options.config)
    if path is not None:
        sys.stderr.write(f"note: options from {path}\n")
        file = msgspec.structs.replace(
            file,
            facts=_beside(path, file.facts),
            profiles=_beside(path, file.profiles),
        )
    said = options.said()
    said.pop("config", None)
    if "hardware" in said or "facts" in said:
        file = msgspec.structs.replace(file, **{name: getattr(Config(), name) for name in MACHINE})
    if "engine_arg" in said:
        said["engine_args"] = said.pop("engine_arg")
    given = {
        name: tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else value
        for name, value in said.items()
    }
    return msgspec.structs.replace(file, **given)


def _beside(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name if name == "-" else str(path.parent / name) for name in names)


def _inventory(config: Config, catalog: Catalog) -> Inventory:
    """Return the machine that was named, or this one."""
    if config.hardware is not None and config.facts:
        raise RequestError("--hardware and --facts both name the machine; give one of them")
    if config.hardware is not None:
        for size, most in _SIZES.items():
            value = getattr(config, size)
            if value is not None and not 1 <= value <= most:
                raise RequestError(f"--{size} {value} is nothing that a real machine has")
        return inventory_from_hardware(
            parse_hardware(config.hardware),
            catalog,
            ram=config.ram,
            cores=config.cores,
            numa=config.numa,
            disk=config.disk,
        )
    for size in _SIZES:
        if getattr(config, size) is not None:
            raise RequestError(
                f"--{size} describes the machine of --hardware; facts carry their own",
                hint=f"kimideploy plan --hardware 8xH200 --{size} …",
            )
    from kimideploy.facts.local import inspect_local, read_facts  # noqa: PLC0415

    if config.facts:
        return inventory_from_facts([read_facts(Path(name)) for name in config.facts], catalog)
    facts = inspect_local()
    if not facts.gpus:
        sys.stderr.write("note: this machine has no GPU; --hardware 8xH200 plans for another\n")
    return inventory_from_facts([facts], catalog)
