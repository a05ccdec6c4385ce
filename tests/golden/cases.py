"""Read a golden case and make what it must make.

    <case>/case.yaml       hardware or facts, and the request
    <case>/plan.json       the decision, byte for byte
    <case>/command-N.txt   the command of node N, one word a line
    <case>/*.service       the unit of each node

`python -m tests.golden.cases` writes the outputs anew; read the diff before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import Catalog
from kimideploy.documents import read_document
from kimideploy.engines import complete
from kimideploy.facts.hardware import parse_hardware
from kimideploy.facts.local import read_facts
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_facts, inventory_from_hardware
from kimideploy.planning.types import Decision, Inventory, Plan, Request, encode
from kimideploy.quantities import parse_bytes
from kimideploy.render.files import render

FOLDER = Path(__file__).parent


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `case.yaml` says; `facts` are paths beside it."""

    about: str
    hardware: str | None = None
    facts: tuple[str, ...] = ()
    ram: str | None = None
    cores: int | None = None
    numa: int | None = None
    request: Request = Request()


def folders() -> list[Path]:
    """Return every case, by name."""
    return sorted(path.parent for path in FOLDER.glob("*/case.yaml"))


def decision(folder: Path, catalog: Catalog) -> Decision:
    """Return what kimideploy decides for the case."""
    source = folder / "case.yaml"
    case = read_document(source.read_text(encoding="utf-8"), Case, name=str(source))
    # Why: a new GPU changes the catalog's digest, and must not change every case.
    catalog = msgspec.structs.replace(catalog, digest="0" * 64)
    found = decide(case.request, _inventory(case, folder, catalog), catalog)
    return complete(found, catalog) if isinstance(found, Plan) else found


def _inventory(case: Case, folder: Path, catalog: Catalog) -> Inventory:
    if case.hardware is None:
        return inventory_from_facts([read_facts(folder / name) for name in case.facts], catalog)
    return inventory_from_hardware(
        parse_hardware(case.hardware),
        catalog,
        ram=parse_bytes(case.ram) if case.ram is not None else None,
        cores=case.cores,
        numa=case.numa,
    )


def outputs(folder: Path, catalog: Catalog) -> dict[str, str]:
    """Return the files the case must hold, by name."""
    found = decision(folder, catalog)
    made = {"plan.json": encode(found).decode()}
    if isinstance(found, Plan):
        for launch in found.launches:
            made[f"command-{launch.node}.txt"] = "\n".join(launch.argv) + "\n"
        made |= render(found, "systemd", catalog)
    return made


def inputs(folder: Path, catalog: Catalog) -> set[str]:
    """Return the names of the files the case reads."""
    del catalog
    source = folder / "case.yaml"
    case = read_document(source.read_text(encoding="utf-8"), Case, name=str(source))
    return {"case.yaml", *case.facts}


def main() -> None:
    """Write the outputs of every case anew."""
    catalog = load_catalog()
    for folder in folders():
        made = outputs(folder, catalog)
        for stale in {path.name for path in folder.iterdir()} - inputs(folder, catalog) - set(made):
            (folder / stale).unlink()
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
        print(folder.name, *sorted(made))


if __name__ == "__main__":
    main()
