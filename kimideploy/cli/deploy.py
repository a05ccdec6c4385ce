"""`kimideploy serve --host`: plan for the hosts, and have each become what the plan says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functools import partial

    from kimideploy.apply.events import Rehearsal
    from kimideploy.apply.order import Order, Source
    from kimideploy.catalog.types import Catalog
    from kimideploy.cli.hosts import HostOptions
    from kimideploy.cli.options import PlanOptions
    from kimideploy.errors import KimiError
    from kimideploy.facts.types import HostFacts
    from kimideploy.planning.types import Decision, Plan
    from kimideploy.remote.bootstrap import Reached
    from kimideploy.remote.places import Place

#: seconds in which all nodes of a model must be known to be well, after the first one is
_CONFIRM = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was said of a deployment besides the plan's own options."""

    plan: str | None
    ssh_config: Path | None
    venv: Path | None
    rehearsal: Rehearsal | None
    offline: bool
    accept_code: bool
    adopt: tuple[str, ...] = ()
    bundle: Path | None = None
    hub: str | None = None
    hub_token: Path | None = None
    ready_timeout: float | None = None
    keep: int = 3
    wait: float = 0
    #: only bring engine and weights
    prepare: bool = False
    #: the first host pulls, and gives the weights to the others
    pull_once: bool = False
    share_address: str | None = None
    #: checks of the doctor that must not refuse
    skip: tuple[str, ...] = ()
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Mine:
    """What one host is to serve: a plan, which node of it, and the profiles it was made with."""

    plan: Plan
    node: int
    profiles: tuple[tuple[str, str], ...]


def deploy(options: PlanOptions, hosts: HostOptions, wishes: Wishes) -> None:
    """Have every host serve; the exit code is the first one's that fails."""
    from kimideploy.cli.changes import applied  # noqa: PLC0415
    from kimideploy.cli.hosts import reaches  # noqa: PLC0415
    from kimideploy.cli.peers import brought  # noqa: PLC0415
    from kimideploy.remote.places import There  # noqa: PLC0415

    _possible(wishes)
    makers = [reaches(name, hosts, install=not wishes.dry_run) for name in hosts.host or ()]
    found = _reached(makers)
    plans = _plans(options, found, wishes)
    barred = _barred(options, found, plans, wishes)
    orders: list[tuple[Place, Order]] = [
        (There(reached, make), _order(reached, mine, hosts, wishes))
        for at, (reached, make, mine) in enumerate(zip(found, makers, plans, strict=True))
        if at not in barred
    ]
    found = [reached for at, reached in enumerate(found) if at not in barred]
    missing = [
        place.name for (place, _), one in zip(orders, found, strict=True) if not one.is_ready
    ]
    if wishes.dry_run and missing:
        _say_without(missing, as_json=wishes.as_json)
        if len(missing) == len(orders):
            return
        orders = [(p, o) for (p, o), one in zip(orders, found, strict=True) if one.is_ready]
    if wishes.dry_run and wishes.pull_once and len(orders) > 1:
        sys.stderr.write(f"note: only {orders[0][0].name} would ask the hub, then the others it\n")
    if not wishes.dry_run:
        orders = _supplied(orders, found, hosts, wishes)
        if wishes.pull_once:
            address = wishes.share_address or _head(options, found, wishes.ssh_config)
            orders = brought(orders, address or "", wishes)
    applied(orders, wait=wishes.wait, dry_run=wishes.dry_run, as_json=wishes.as_json)
    if barred:
        raise next(iter(barred.values()))


def _reached(makers: Sequence[partial[Reached]]) -> list[Reached]:
    """Return every host, reached; raises the error of the first that can't be."""
    from kimideploy.errors import KimiError  # noqa: PLC0415
    from kimideploy.remote.places import each  # noqa: PLC0415

    found: list[Reached] = []
    failed: list[KimiError] = []
    for result in each(makers, lambda make: make()):
        (failed if isinstance(result, KimiError) else found).append(result)  # type: ignore[arg-type]
    # Why not the others first: a plan for several hosts needs all of them, and a copy may follow.
    if failed:
        for other in failed[1:]:
            sys.stderr.write(f"error: {other.message}\n")
        raise failed[0]
    return found


def _barred(
    options: PlanOptions, found: Sequence[Reached], plans: Sequence[Mine], wishes: Wishes
) -> dict[int, KimiError]:
    """Return what the doctor says against hosts, by their places in *found*, after telling it.

    Hosts with copies of their own don't wait for one that is not fit.
    """
    if wishes.rehearsal is not None or wishes.dry_run:
        return {}
    from kimideploy.cli.admission import admit_hosts  # noqa: PLC0415

    barred = admit_hosts(options, found, plans, wishes)
    for error in barred.values():
        sys.stderr.write(f"left out: {error.message}\n")
    return barred


def _possible(wishes: Wishes) -> None:
    """Raise RequestError for what needs no host to be refused."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if wishes.rehearsal == "vllm" and wishes.venv is None:
        raise RequestError(
            "--rehearse=vllm needs --venv: where vLLM's CPU build is on the hosts",
            hint="--rehearse for a stand-in, which needs nothing",
        )
    if wishes.rehearsal is not None and wishes.pull_once:
        raise RequestError("a rehearsal pulls no weights; leave --pull-once out")


def _supplied(
    orders: list[tuple[Place, Order]],
    found: Sequence[Reached],
    hosts: HostOptions,
    wishes: Wishes,
) -> list[tuple[Place, Order]]:
    """Return the orders after the hosts were sent what they can't get by themselves."""
    import msgspec  # noqa: PLC0415

    from kimideploy.cli.hosts import access_of  # noqa: PLC0415
    from kimideploy.remote.bootstrap import send_wheels  # noqa: PLC0415

    for (_, order), reached in zip(orders, found, strict=True):
        if hosts.wheelhouse is not None and order.engine.kind == "install":
            send_wheels(reached.shell, hosts.wheelhouse, reached.top)
        if wishes.hub_token is not None:
            _give_token(reached, wishes.hub_token)
    if wishes.bundle is None:
        return orders
    many = 1 if wishes.pull_once else len(orders)
    rest = [(place, msgspec.structs.replace(order, bundle=None)) for place, order in orders[many:]]
    return [*_sent(orders[:many], found[:many], access_of(hosts), wishes.bundle), *rest]


def _give_token(reached: Reached, path: Path) -> None:
    """Have the hub's token on the host, where only who pulls reads it."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    try:
        secret = path.read_bytes().strip() + b"\n"
    except OSError as error:
        raise RequestError(f"--hub-token-file {path} can't be read: {error.strerror}") from error
    reached.shell.put(secret, f"{reached.settings}/hub.token", mode=0o600)


def _sent(
    orders: list[tuple[Place, Order]], found: Sequence[Reached], access: Any, bundle: Path
) -> list[tuple[Place, Order]]:
    """Return the orders after the bundle was sent to the hosts that lack what is in it."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.answers import Looked  # noqa: PLC0415
    from kimideploy.cli.hosts import noted  # noqa: PLC0415
    from kimideploy.quantities import decimal  # noqa: PLC0415
    from kimideploy.remote.bulk import push  # noqa: PLC0415

    after = []
    for (place, order), reached in zip(orders, found, strict=True):
        without = msgspec.structs.replace(order, bundle=None, offline=False)
        steps = place.ask("look", tuple[Looked, ...], order=without)
        if not any(step.changes for step in steps if step.step == "weights"):
            after.append((place, msgspec.structs.replace(order, bundle=None)))
            continue
        told = 0

        def watch(done: int, total: int, name: str = place.name) -> None:
            nonlocal told
            if 20 * done // max(1, total) > told:
                told = 20 * done // max(1, total)
                noted(f"{name}: sent {decimal(done)} of {decimal(total)}")

        push(reached.shell, access, bundle, str(order.bundle), watch)
        after.append((place, order))
    return after


def _plans(options: PlanOptions, found: Sequence[Reached], wishes: Wishes) -> list[Mine]:
    """Return for each host what it is to serve."""
    from kimideploy.apply.order import overlay  # noqa: PLC0415
    from kimideploy.catalog.load import user_overlays  # noqa: PLC0415
    from kimideploy.cli.plan import refuse  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415

    profiles = overlay(user_overlays(options.profiles or ()))
    decisions = decided(options, found, wishes)
    plans: list[Plan] = []
    for decision in decisions:
        if not isinstance(decision, Plan):
            refuse(decision, as_json=wishes.as_json)
        plans.append(decision)
    nodes = plans[0].candidate.nodes
    if nodes > 1 and wishes.rehearsal == "vllm":
        raise RequestError(
            "the nano Kimi is for one node, and this plan has several",
            hint="--rehearse rehearses all of them with a stand-in",
        )
    if nodes not in (1, len(found)):
        raise RequestError(
            f"the plan is for {nodes} nodes, and {len(found)} hosts were named",
            hint="--host once for each node, the head first",
        )
    return [Mine(plan, rank if nodes > 1 else 0, profiles) for rank, plan in enumerate(plans)]


def decided(options: PlanOptions, found: Sequence[Reached], wishes: Wishes) -> list[Decision]:
    """Return one decision a host: the saved plan, each host's own, or one over all of them."""
    import dataclasses  # noqa: PLC0415

    from kimideploy.cli.plan import REHEARSED, decide_from_options  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415

    if wishes.plan is not None:
        plan = _saved(wishes.plan, options, found, wishes.ssh_config)
        return [plan] * len(found)
    if wishes.rehearsal is not None and not options.facts:
        usual = dataclasses.replace(options, hardware=options.hardware or REHEARSED)
        usual = dataclasses.replace(usual, head_address=_head(usual, found, wishes.ssh_config))
        return [decide_from_options(usual)[0]] * len(found)
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if options.hardware or options.facts:
        raise RequestError("the hosts are what is planned for; leave --hardware and --facts out")
    facts = _facts(found, wishes)
    each = [decide_from_options(options, [one])[0] for one in facts]
    if len(found) == 1 or all(isinstance(one, Plan) for one in each):
        return each
    together = dataclasses.replace(options, head_address=_head(options, found, wishes.ssh_config))
    return [decide_from_options(together, facts)[0]] * len(found)


def _head(options: PlanOptions, found: Sequence[Reached], config: Path | None) -> str | None:
    """Return the first host as the others reach it: as it was said, or as it is reached here."""
    if options.head_address is not None or len(found) == 1:
        return options.head_address
    from kimideploy.remote.settings import settings  # noqa: PLC0415

    return settings(found[0].shell.address, config).host


def _facts(found: Sequence[Reached], wishes: Wishes) -> list[HostFacts]:
    from kimideploy.remote.inspect import inspect  # noqa: PLC0415
    from kimideploy.remote.places import all_of  # noqa: PLC0415

    venvs = [str(wishes.venv)] if wishes.venv is not None else []
    return all_of(found, lambda one: inspect(one.shell, venvs, python=python_of(one)))


def python_of(reached: Reached) -> str:
    """Return the Python of a host that asks the driver: ours, if it is there, has the bindings."""
    return f"{reached.top}/app/current/bin/python" if reached.is_ready else "python3"


def _saved(name: str, options: PlanOptions, found: Sequence[Reached], config: Path | None) -> Plan:
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.saved import name_of, nothing_else, text_of  # noqa: PLC0415
    from kimideploy.engines import complete, unresolved  # noqa: PLC0415
    from kimideploy.planning.saved import plan_from  # noqa: PLC0415

    nothing_else(options, name)
    catalog: Catalog = load_catalog(user_overlays(options.profiles or ()))
    plan = plan_from(text_of(name), name=name_of(name))
    if len(found) > 1 and any(unresolved(launch) for launch in plan.launches):
        import msgspec  # noqa: PLC0415

        request = msgspec.structs.replace(plan.request, head_address=_head(options, found, config))
        told = tuple(n for n in plan.warnings if n.code != "head-address")
        plan = complete(msgspec.structs.replace(plan, request=request, warnings=told), catalog)
    return plan if plan.launches else complete(plan, catalog)


def _order(reached: Reached, mine: Mine, hosts: HostOptions, wishes: Wishes) -> Order:
    from kimideploy.apply.order import Order  # noqa: PLC0415
    from kimideploy.remote.host import who  # noqa: PLC0415

    return Order(
        plan=mine.plan,
        node=mine.node,
        engine=_source(reached, hosts, wishes),
        adopt=wishes.adopt,
        bundle=f"{reached.incoming}/{wishes.bundle.name}" if wishes.bundle is not None else None,
        offline=wishes.offline,
        accept_code=wishes.accept_code,
        quiet=wishes.ready_timeout,
        hub=wishes.hub,
        profiles=mine.profiles,
        keep=wishes.keep,
        prepare=wishes.prepare,
        skip=wishes.skip,
        confirm=_CONFIRM if mine.plan.candidate.nodes > 1 else None,
        who=who(),
    )


def _source(reached: Reached, hosts: HostOptions, wishes: Wishes) -> Source:
    from kimideploy.apply.order import Source  # noqa: PLC0415

    if wishes.rehearsal == "stand-in":
        return Source(kind="stand-in")
    if wishes.rehearsal == "vllm":
        return Source(kind="nano", path=str(wishes.venv))
    if wishes.venv is not None:
        return Source(kind="venv", path=str(wishes.venv))
    wheels = f"{reached.top}/wheels" if hosts.wheelhouse is not None else None
    return Source(kind="install", index=hosts.index_url, wheels=wheels)


def _say_without(names: Sequence[str], *, as_json: bool) -> None:
    from kimideploy.apply.carry import STEPS  # noqa: PLC0415

    steps = ", ".join(step.name for step in STEPS)
    if as_json:
        import json  # noqa: PLC0415

        change = {"step": "install kimideploy", "changes": [{"what": f"then look at: {steps}"}]}
        sys.stdout.write(json.dumps({name: [change] for name in names}, indent=2) + "\n")
        return
    for name in names:
        sys.stdout.write(f"{name}: install kimideploy, then look at: {steps}\n")
