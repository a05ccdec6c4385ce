"""Releases of a host: a plan as it was applied, whole and never changed afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kimideploy.apply import order as orders
from kimideploy.apply.answers import Pending
from kimideploy.apply.files import link, text, write
from kimideploy.apply.home import UNIT, Home, Scope
from kimideploy.apply.home import home as home_of
from kimideploy.apply.order import Order
from kimideploy.errors import KimiError, MachineError, RequestError
from kimideploy.facts.types import Strict
from kimideploy.files import sync
from kimideploy.planning.saved import plan_from
from kimideploy.planning.types import Plan, encode


class Made(Strict, frozen=True):
    """When a release was made, by whom, and what was asked for then."""

    number: int
    at: float
    who: str
    digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """One folder of `releases`."""

    folder: Path
    made: Made

    @property
    def number(self) -> int:
        """Its number; they only grow."""
        return self.made.number

    @property
    def is_proved(self) -> bool:
        """Whether it passed its checks once."""
        return (self.folder / "proved").is_file()

    @property
    def unit(self) -> str:
        """The unit as it was rendered."""
        return (self.folder / UNIT).read_text(encoding="utf-8")

    def order(self) -> Order:
        """Return what was asked for."""
        path = self.folder / "order.json"
        return orders.read(path.read_text(encoding="utf-8"), name=str(path))

    def plan(self) -> Plan:
        """Return the plan as it was applied, on weights that were here."""
        path = self.folder / "plan.json"
        return plan_from(path.read_text(encoding="utf-8"), name=str(path))


def releases(home: Home) -> list[Release]:
    """Return the releases of this host, the newest first."""
    return sorted(_all(home), key=lambda release: -release.number)


def release(home: Home, number: int) -> Release:
    """Return one release; RequestError if it is not here."""
    found = next((one for one in _all(home) if one.number == number), None)
    if found is None:
        here = ", ".join(str(one.number) for one in releases(home)) or "none"
        raise RequestError(f"there is no release {number} here; there are: {here}")
    return found


def weights_in_use() -> dict[Path, str]:
    """Return each folder that a release of this machine serves from, or may return to, and which.

    A release that can't be read here, another user's, names none.
    """
    found: dict[Path, str] = {}
    scopes: tuple[Scope, ...] = ("system", "user") if os.geteuid() else ("system",)
    for scope in scopes:
        for one in releases(home_of(scope)):
            with suppress(KimiError, OSError):
                plan = one.plan()
                local = plan.local
                given = plan.request.model_path
                paths = (local.path, local.draft) if local is not None else (given, None)
                for path in paths:
                    if path is not None:
                        found.setdefault(Path(path), f"release {one.number}")
    return found


def current(home: Home) -> Release | None:
    """Return the release that was proved last, None before the first."""
    try:
        number = int(home.current.readlink().name)
    except (OSError, ValueError):
        return None
    return next((one for one in _all(home) if one.number == number), None)


def next_number(home: Home) -> int:
    """Return a number that no release of this host ever had."""
    known = [one.number for one in _all(home)]
    with suppress(OSError, ValueError):
        known.append(int((home.state / "last").read_text(encoding="utf-8")))
    return max(known, default=0) + 1


def store(home: Home, made: Made, order: Order, plan: Plan, unit: str) -> Release:
    """Return the release, whole on the disk."""
    folder = home.releases / str(made.number)
    draft = home.releases / f".{made.number}"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir(mode=0o755)
    write(draft / "order.json", orders.written(order))
    write(draft / "plan.json", encode(plan))
    write(draft / UNIT, unit.encode())
    write(draft / "release.json", msgspec.json.encode(made) + b"\n")
    write(home.state / "last", str(made.number).encode())
    draft.replace(folder)
    sync(home.releases)
    return Release(folder, made)


def make_current(home: Home, found: Release, at: float) -> None:
    """Have *found* be the proved one that a rollback comes back to."""
    write(found.folder / "proved", f"{at}\n".encode())
    link(home.current, f"releases/{found.number}")


def remove(found: Release) -> None:
    """Have no such release any more."""
    gone = found.folder.with_name(f".{found.number}")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        found.folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def pending(home: Home) -> Pending | None:
    """Return the release on trial, if a change was begun and has not ended."""
    said = text(home.pending)
    if said is None:
        return None
    try:
        return msgspec.json.decode(said, type=Pending)
    except msgspec.DecodeError as error:
        raise MachineError(f"{home.pending} is not what kimideploy wrote: {error}") from error


def set_pending(home: Home, trial: Pending | None) -> None:
    """Write down, durably, which release is on trial; None: none is."""
    if trial is None:
        with suppress(FileNotFoundError):
            home.pending.unlink()
            sync(home.state)
    else:
        write(home.pending, msgspec.json.encode(trial))


def _all(home: Home) -> Iterator[Release]:
    try:
        folders = list(home.releases.iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        if folder.name.isdecimal():
            with suppress(OSError, msgspec.DecodeError):
                data = (folder / "release.json").read_bytes()
                yield Release(folder, msgspec.json.decode(data, type=Made))
