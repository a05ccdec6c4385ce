"""What a plan may use: nodes made from a hardware word or from the facts of real machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from kimideploy.catalog.find import find_gpu, gpu_by_driver_name
from kimideploy.catalog.types import Catalog, Gpu
from kimideploy.errors import RequestError
from kimideploy.facts.hardware import Hardware
from kimideploy.facts.types import GpuFacts, HostFacts
from kimideploy.planning.strangers import stranger
from kimideploy.planning.types import Inventory, Node
from kimideploy.quantities import GIB, MIB

# Why: the driver's total is a little more than what an engine sees (context, ECC, page tables):
# an H200 reports 143,771 MiB and vLLM sees 139.8 GiB. Only a card that reports clearly less
# than its profile is another card; see `_card`.
_TOLERANCE = 0.04


def inventory_from_hardware(
    hardware: Hardware,
    catalog: Catalog,
    *,
    ram: int | None = None,
    cores: int | None = None,
    numa: int | None = None,
    disk: int | None = None,
) -> Inventory:
    """Return the nodes that *hardware* names; raises RequestError for an unknown GPU."""
    gpu = find_gpu(catalog, hardware.gpu) if hardware.gpu is not None else None
    nodes = tuple(
        Node(
            name=f"node{index}",
            gpu=gpu.id if gpu is not None else None,
            gpus=hardware.gpus,
            gpu_memory=int(gpu.memory.usable) if gpu is not None else 0,
            generation=gpu.generation if gpu is not None else None,
            domain=gpu.interconnect.domain if gpu is not None else 1,
            ram=ram if ram is not None else hardware.ram,
            cores=cores,
            numa=numa,
            disk_free=disk,
        )
        for index in range(hardware.nodes)
    )
    return Inventory(nodes=nodes)


def inventory_from_facts(facts: Sequence[HostFacts], catalog: Catalog) -> Inventory:
    """Return one node for each machine; what can't be used is said in `Inventory.notes`."""
    notes: list[str] = []
    nodes: list[Node] = []
    strangers: dict[str, Gpu] = {}
    names: Counter[str] = Counter()
    for index, host in enumerate(facts):
        name = host.hostname or f"node{index}"
        names[name] += 1
        if names[name] > 1:
            name = f"{name}#{names[name]}"
        nodes.append(_node(name, host, catalog, notes, strangers))
    return Inventory(tuple(nodes), tuple(notes), tuple(strangers.values()))


def _node(
    name: str,
    host: HostFacts,
    catalog: Catalog,
    notes: list[str],
    strangers: dict[str, Gpu],
) -> Node:
    cards: dict[str, list[tuple[GpuFacts, Gpu]]] = {}
    for fact in host.gpus:
        gpu = _card(name, fact, catalog, notes, strangers)
        if gpu is not None:
            cards.setdefault(gpu.id, []).append((fact, gpu))
    used = max(cards.values(), key=lambda group: sum(g.memory.usable for _, g in group), default=[])
    notes += [
        f"{name}: {len(group)} × {group[0][1].name} left out: a plan uses one kind"
        for group in cards.values()
        if group is not used
    ]
    memory = host.memory
    limits = [limit for limit in (memory.total, memory.limit) if limit is not None]
    gpu = used[0][1] if used else None
    return Node(
        name=name,
        gpu=gpu.id if gpu is not None else None,
        gpus=len(used),
        gpu_memory=min((_usable(fact, card) for fact, card in used), default=0),
        generation=gpu.generation if gpu is not None else None,
        domain=_domain([fact for fact, _ in used], gpu) if gpu is not None else 1,
        ram=min(limits, default=None),
        cores=host.cpu.cores,
        numa=host.cpu.numa_nodes,
        cpu_flags=host.cpu.flags,
        disk_free=max((disk.free for disk in host.disks if disk.free is not None), default=None),
        architecture=host.cpu.architecture,
        address=None,
    )


def _card(
    node: str,
    fact: GpuFacts,
    catalog: Catalog,
    notes: list[str],
    strangers: dict[str, Gpu],
) -> Gpu | None:
    where = f"{node}: GPU {fact.index}"
    if fact.error is not None or fact.name is None:
        notes.append(f"{where} left out: {fact.error or 'the driver gives no name'}")
        return None
    if fact.mig:
        notes.append(f"{where} ({fact.name}) left out: it is in MIG mode")
        return None
    gpu = gpu_by_driver_name(catalog, fact.name, fact.memory_total)
    if gpu is not None:
        return gpu
    made = stranger(fact, catalog)
    if isinstance(made, str):
        notes.append(f"{where} ({fact.name}) left out: no profile knows it, and {made}")
        return None
    if made.id not in strangers:
        notes.append(
            f"{node}: no profile knows {fact.name}; it is planned by what the driver says,"
            " with the widest error bars"
        )
    return strangers.setdefault(made.id, made)


def _usable(fact: GpuFacts, gpu: Gpu) -> int:
    """Bytes an engine can have of this card: the profile's, less what others hold."""
    usable = int(gpu.memory.usable)
    if fact.memory_total is not None and fact.memory_total < usable * (1 - _TOLERANCE):
        usable = fact.memory_total
    held = sum(process.used or 0 for process in fact.processes)
    return max(0, usable - held)


def _domain(facts: Sequence[GpuFacts], gpu: Gpu) -> int:
    """The largest group that sees each other over NVLink; the profile's where facts are silent."""
    known = {fact.index for fact in facts}
    peers = {fact.index: fact.peers for fact in facts}
    if gpu.interconnect.kind == "pcie" or not any(peers.values()):
        return min(gpu.interconnect.domain, max(1, len(facts)))
    reached = [
        1 + sum(peer.link == "nvlink" and peer.index in known for peer in group)
        for group in peers.values()
    ]
    return min(reached)


@dataclass(frozen=True)
class Group:
    """Nodes that are alike, so that one decision holds for all of them."""

    nodes: tuple[Node, ...]

    @cached_property
    def node(self) -> Node:
        """The node that stands for the group: the least of each amount that may differ a little."""
        first = self.nodes[0]
        if len(self.nodes) == 1:
            return first
        return msgspec.structs.replace(
            first,
            gpu_memory=min(node.gpu_memory for node in self.nodes),
            domain=min(node.domain for node in self.nodes),
            ram=_least([node.ram for node in self.nodes]),
            cores=_least([node.cores for node in self.nodes]),
            disk_free=_least([node.disk_free for node in self.nodes]),
        )


def _least(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def groups(inventory: Inventory) -> tuple[Group, ...]:
    """Return the nodes grouped by what they hold, in order of first appearance; linear."""
    alike: dict[tuple[str | None, int], list[Node]] = {}
    for node in inventory.nodes:
        alike.setdefault((node.gpu, node.gpus), []).append(node)
    return tuple(Group(nodes=tuple(nodes)) for nodes in alike.values())


def check(inventory: Inventory) -> None:
    """Raise RequestError when there is nothing to plan on or a number can't be true."""
    if not inventory.nodes:
        raise RequestError("there is no machine to plan for", hint="give --hardware or --facts")
    for node in inventory.nodes:
        if node.gpus and not 64 * MIB <= node.gpu_memory <= 8192 * GIB:
            raise RequestError(f"{node.name}: {node.gpu_memory} bytes is no memory of a real GPU")
