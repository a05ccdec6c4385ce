"""How a host stands: its unit, its release, what was changed by hand, its GPUs and its endpoint."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress

import msgspec

from kimideploy.apply import runs
from kimideploy.apply.answers import GpuUse, Load, Status, Trouble
from kimideploy.apply.files import text
from kimideploy.apply.home import UNIT, Home
from kimideploy.apply.job import job
from kimideploy.apply.keys import key_of
from kimideploy.apply.lock import holder
from kimideploy.apply.mend import LIMITS
from kimideploy.apply.order import Order, catalog_of
from kimideploy.apply.release import Release, current, pending, release
from kimideploy.apply.report import report
from kimideploy.apply.systemd import State, Systemd
from kimideploy.catalog.failures import of_engine
from kimideploy.catalog.types import Catalog
from kimideploy.conformance.client import Client
from kimideploy.conformance.metrics import counted
from kimideploy.doctor.causes import causes_in
from kimideploy.engines.site import sites
from kimideploy.errors import KimiError
from kimideploy.facts.local import inspect_local

#: lines of the journal that are searched for known causes
_LINES = 2000


def status(home: Home) -> Status:
    """Return how this host stands; what can't be seen is left out."""
    systemd = Systemd(home.scope)
    state = systemd.show()
    trial = pending(home)
    found = release(home, trial.release) if trial is not None else current(home)
    said = report(home)
    every = runs.runs(home)
    base = Status(
        host=socket.gethostname(),
        scope=home.scope,
        state=state.active if state.known else "absent",
        sub=state.sub,
        since=state.said.get("ActiveEnterTimestamp", ""),
        restarts=state.restarts,
        enabled=state.is_enabled,
        result=state.said.get("Result", ""),
        report=said,
        pending=trial,
        holder=holder(home),
        run=every[0] if every else None,
        gpus=tuple(
            GpuUse(gpu.index, gpu.name, gpu.memory_used, gpu.memory_total, gpu.error)
            for gpu in inspect_local(only=("gpus",)).gpus
        ),
    )
    return _with_release(base, home, found, state) if found is not None else base


def _with_release(base: Status, home: Home, found: Release, state: State) -> Status:
    order, plan = found.order(), found.plan()
    catalog = catalog_of(order)
    launch = plan.launches[order.node]
    what = job(plan, catalog, node=order.node)
    load = None
    if state.active == "active" and not launch.headless:
        with suppress(KimiError):
            count = counted(Client(what.url, key=key_of(what)), what.site.engine.metrics, timeout=2)
            load = Load(count.running, count.waiting, count.cache)
    return msgspec.structs.replace(
        base,
        release=found.number,
        made=found.made.at,
        who=found.made.who,
        model=plan.served_name,
        candidate=plan.candidate.label,
        engine=f"{what.site.engine.name} {plan.pins.engine_version}",
        url=what.url if not launch.headless else None,
        drift=drift(home, found, state),
        load=load,
        troubles=troubles(home, order, catalog, found),
    )


def drift(home: Home, found: Release, state: State) -> tuple[str, ...]:
    """Return what on this host is not as its release says."""
    ways = []
    on_disk = text(home.unit)
    if on_disk is None:
        ways.append(f"{home.unit} is gone")
    elif on_disk != found.unit:
        ways.append(f"{home.unit} was changed by hand")
    strange = [p for p in state.said.get("DropInPaths", "").split() if not p.endswith(f"/{LIMITS}")]
    if strange:
        ways.append(f"drop-ins change the unit: {' '.join(strange)}")
    if state.said.get("NeedDaemonReload") == "yes":
        ways.append("systemd has not read the unit as it is on the disk")
    if state.known and not state.is_enabled:
        ways.append("it is not enabled: a boot will not start it")
    if text(home.settings / "engine.env"):
        ways.append(f"{home.settings / 'engine.env'} adds to the engine's environment")
    return tuple(ways)


def troubles(home: Home, order: Order, catalog: Catalog, found: Release) -> tuple[Trouble, ...]:
    """Return the last lines of the journal that have a known cause, and the GPUs' own errors."""
    engine = sites(found.plan(), catalog)[order.node].engine
    known = of_engine(catalog.failures, engine.id)
    return tuple(
        Trouble(one.line, one.failure.cause, one.failure.fix, one.failure.link)
        for one in causes_in("\n".join(story(home)), known)
    )


def story(home: Home) -> list[str]:
    """Return what the unit, and then the kernel, wrote into the journal since the boot."""
    told = journal(home, "-u", UNIT, "-n", str(_LINES), "-o", "cat", "-b")
    # Why too: what the kernel says of an engine that died is not in the unit's journal.
    return told + journal(home, "_TRANSPORT=kernel", "-n", str(_LINES), "-o", "cat", "-b")


def journal(home: Home, *words: str) -> list[str]:
    """Return lines of the journal, none where it can't be read."""
    argv = ["journalctl", "--no-pager", "-q", *words]
    if home.scope == "user":
        argv.insert(1, "--user")
    try:
        ended = subprocess.run(
            argv, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ended.stdout.decode("utf-8", "replace").splitlines()
