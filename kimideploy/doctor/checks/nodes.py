"""Nodes of one plan against each other: same versions, same MTU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kimideploy.doctor.case import Case, Unseen, engine_of
from kimideploy.doctor.check import NODES, check
from kimideploy.doctor.types import Finding
from kimideploy.facts.types import HostFacts

_HANGS = "https://github.com/sgl-project/sglang/issues/12289"


@check(
    "same-engine",
    "blocks",
    scope=NODES,
    why="ranks of different versions hang or end at the first collective",
    link=_HANGS,
)
def same_engine(case: Case) -> Iterator[Finding]:
    """All nodes have the engine in the same version."""
    if case.installs:
        return

    def version(facts: HostFacts) -> str | None:
        found = engine_of(facts, case.plan, case.command)
        return found.version if found is not None else None

    yield from _differ(case, case.plan.engine.name, version, "install the same version everywhere")


@check(
    "same-driver",
    "warns",
    scope=NODES,
    why="nodes with different drivers were seen to hang in NCCL",
    link=_HANGS,
)
def same_driver(case: Case) -> Iterator[Finding]:
    """All nodes have the same driver."""
    yield from _differ(
        case,
        "the driver",
        lambda facts: facts.driver.version if facts.driver is not None else None,
        "install the same driver everywhere",
    )


@check(
    "same-gpus",
    "blocks",
    scope=NODES,
    why="a layout is dealt out over like GPUs",
)
def same_gpus(case: Case) -> Iterator[Finding]:
    """All nodes have the same GPUs."""

    def cards(facts: HostFacts) -> str | None:
        names = sorted({gpu.name or "?" for gpu in facts.gpus})
        return " and ".join(names) or None

    yield from _differ(case, "the GPU", cards, "plan with nodes that are alike")


@check(
    "same-mtu",
    "warns",
    scope=NODES,
    why="with different MTUs small messages pass and large ones hang",
    link="https://github.com/NVIDIA/nccl/issues/1524",
)
def same_mtu(case: Case) -> Iterator[Finding]:
    """All nodes use the same MTU towards each other."""
    said = case.environment.get("NCCL_SOCKET_IFNAME", "").lstrip("=").split(",")[0]

    def mtu(facts: HostFacts) -> str | None:
        found = [
            one
            for one in facts.interfaces
            if one.up and one.is_real and one.addresses and one.name.startswith(said)
        ]
        return ", ".join(sorted({str(one.mtu) for one in found if one.mtu is not None})) or None

    yield from _differ(case, "the MTU", mtu, "ip link set DEV mtu N, the same everywhere")


@check(
    "same-clock",
    "warns",
    scope=NODES,
    why="logs of several nodes can only be read side by side when their clocks agree",
)
def same_clock(case: Case) -> Iterator[Finding]:
    """All nodes' clocks are kept."""
    loose = [
        facts.hostname or "?"
        for facts in (case.facts, *case.others)
        if facts.clock is not None and facts.clock.synchronized is False
    ]
    if loose and len(loose) < 1 + len(case.others):
        yield Finding(f"nothing keeps the clock of {', '.join(loose)}", "timedatectl set-ntp true")


def _differ(
    case: Case, what: str, of: Callable[[HostFacts], str | None], fix: str
) -> Iterator[Finding]:
    if not case.others:
        raise Unseen("the other nodes were not looked at")
    mine = case.known(of(case.facts))
    for facts in case.others:
        theirs = of(facts)
        if theirs is not None and theirs != mine:
            name = facts.hostname or "another node"
            yield Finding(f"{what} is {mine} here and {theirs} on {name}", fix)
