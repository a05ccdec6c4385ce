"""Facts of real machines become nodes, and what is left out is said."""

from __future__ import annotations

import msgspec
import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.facts.types import (
    CpuFacts,
    GpuFacts,
    GpuPeer,
    GpuProcess,
    HostFacts,
    MemoryFacts,
)
from kimideploy.planning.inventory import check, groups, inventory_from_facts
from kimideploy.planning.types import Inventory, Node

GIB = 1 << 30
MIB = 1 << 20
CATALOG = load_catalog()
#: what NVML reports for an H200
H200 = 143_771 * MIB


def h200(index: int, **changes: object) -> GpuFacts:
    """Return one H200 that sees seven others over NVLink."""
    peers = tuple(GpuPeer(index=other, link="nvlink") for other in range(8) if other != index)
    gpu = GpuFacts(index=index, name="NVIDIA H200", memory_total=H200, peers=peers)
    return msgspec.structs.replace(gpu, **changes)


def host(*gpus: GpuFacts, **changes: object) -> HostFacts:
    """Return a host with 2 TiB of memory."""
    facts = HostFacts(
        hostname="box",
        cpu=CpuFacts(cores=96, numa_nodes=2, flags=("avx2", "avx512f")),
        memory=MemoryFacts(total=2048 * GIB),
        gpus=gpus,
    )
    return msgspec.structs.replace(facts, **changes)


def node_of(facts: HostFacts) -> tuple[Node, tuple[str, ...]]:
    """Return the node and the notes of one host."""
    inventory = inventory_from_facts([facts], CATALOG)
    return inventory.nodes[0], inventory.notes


def test_whole_machine() -> None:
    """Eight H200 with NVLink are one domain of eight, each as large as an engine sees it."""
    node, notes = node_of(host(*(h200(index) for index in range(8))))

    assert (node.gpu, node.gpus, node.domain, node.cores, node.numa) == ("h200", 8, 8, 96, 2)
    assert node.gpu_memory == CATALOG.gpus["h200"].memory.usable
    assert notes == ()


def test_lost_and_mig_gpus_are_left_out() -> None:
    """A lost GPU and one in MIG mode are not planned on, and the notes say which."""
    gpus = [h200(index) for index in range(8)]
    gpus[3] = h200(3, mig=True)
    gpus[6] = GpuFacts(index=6, error="GPU is lost")
    node, notes = node_of(host(*gpus))

    assert node.gpus == 6
    assert any("GPU 3" in note and "MIG" in note for note in notes)
    assert any("GPU 6" in note and "lost" in note for note in notes)


def test_memory_others_hold_is_not_ours() -> None:
    """What another process holds on the fullest GPU is taken off every GPU's share."""
    busy = h200(2, processes=(GpuProcess(pid=1, used=10 * GIB),))
    node, _ = node_of(host(h200(0), h200(1), busy))

    assert node.gpu_memory == CATALOG.gpus["h200"].memory.usable - 10 * GIB


def test_missing_nvlink_shrinks_the_domain() -> None:
    """A GPU that reaches only one peer over NVLink makes the domain two."""
    lonely = h200(7, peers=(GpuPeer(index=6, link="nvlink"), GpuPeer(index=0, link="sys")))
    node, _ = node_of(host(*(h200(index) for index in range(7)), lonely))

    assert node.domain == 2


def test_cgroup_limit_is_the_memory() -> None:
    """A container's limit counts, not the machine's memory."""
    node, _ = node_of(host(h200(0), memory=MemoryFacts(total=2048 * GIB, limit=256 * GIB)))

    assert node.ram == 256 * GIB


def test_unknown_gpu_is_said() -> None:
    """A GPU no profile knows is left out with its name."""
    node, notes = node_of(host(GpuFacts(index=0, name="NVIDIA Nonesuch 9000")))

    assert (node.gpu, node.gpus) == (None, 0)
    assert "Nonesuch" in notes[0]


def test_like_nodes_are_one_group() -> None:
    """Nodes that hold the same are decided on once, with the least of what differs."""
    hosts = [host(h200(0), hostname=f"n{i}", memory=MemoryFacts(total=i * GIB)) for i in (3, 1, 2)]
    found = groups(inventory_from_facts(hosts, CATALOG))

    assert len(found) == 1
    assert found[0].node.ram == 1 * GIB


def test_nothing_to_plan_on() -> None:
    """No machine at all is a wrong request."""
    with pytest.raises(RequestError):
        check(Inventory(nodes=()))
