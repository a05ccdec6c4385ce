"""Cards that no profile knows: planned by what the driver says, and never sure of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kimideploy.catalog.load import load_catalog
from kimideploy.facts.local import read_facts
from kimideploy.facts.types import GpuFacts, GpuPeer, HostFacts
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_facts
from kimideploy.planning.saved import decision_from
from kimideploy.planning.strangers import stranger
from kimideploy.planning.types import Plan, Request, encode
from tests.golden.cases import FOLDER

CATALOG = load_catalog()
GIB = 1 << 30
#: eight H200, as a machine told
H200 = read_facts(FOLDER / "facts-8xh200" / "facts.json")
#: an H200 under another name
CARD = GpuFacts(
    index=0,
    name="NVIDIA H210X",
    memory_total=143_771 << 20,
    compute_capability="9.0",
    memory_clock_max=3201,
    memory_bus_width=6144,
    peers=tuple(GpuPeer(index=index, link="nvlink", nvlinks=18) for index in range(1, 8)),
)


def box(card: GpuFacts = CARD) -> HostFacts:
    """Return a machine of eight such cards."""
    gpus = tuple(
        replace(card, index=index, peers=tuple(replace(p, index=p.index - 1) for p in card.peers))
        for index in range(8)
    )
    return replace(H200, gpus=gpus)


def planned(card: GpuFacts = CARD) -> Plan:
    """Return the plan of that machine."""
    decision = decide(Request(), inventory_from_facts([box(card)], CATALOG), CATALOG)
    assert isinstance(decision, Plan), decision.reason
    return decision


def test_bandwidth_is_clock_times_bus() -> None:
    """3,201 MHz × 2 × 6,144 bits are 4.9 TB/s, marked as a guess."""
    gpu = stranger(CARD, CATALOG)

    assert not isinstance(gpu, str)
    assert gpu.bandwidth is not None
    assert 2 * 3201 * 10**6 * 6144 // 8 == gpu.bandwidth.bytes_per_second
    assert gpu.bandwidth.guess
    assert ("sm90", "nvlink", 8) == (gpu.generation, gpu.interconnect.kind, gpu.interconnect.domain)
    assert 139 * GIB - GIB < gpu.memory.usable < CARD.memory_total  # type: ignore[operator]


def test_an_unknown_h200_is_planned_like_one_with_wider_bars() -> None:
    """The same launch as for the card it is, fewer sure tokens, wider speed, and a note."""
    known = decide(Request(), inventory_from_facts([H200], CATALOG), CATALOG)
    assert isinstance(known, Plan)
    plan = planned()

    assert (known.candidate.layout, known.candidate.checkpoint) == (
        plan.candidate.layout,
        plan.candidate.checkpoint,
    )
    assert plan.fit.kv_tokens_low is not None
    assert known.fit.kv_tokens_low is not None
    assert plan.fit.kv_tokens_low < known.fit.kv_tokens_low
    assert plan.speed is not None
    assert known.speed is not None
    mine, theirs = plan.speed.points[0].per_user, known.speed.points[0].per_user
    assert mine.high / mine.low > theirs.high / theirs.low
    assert pytest.approx(theirs.typical, rel=0.1) == mine.typical
    assert "no profile knows this card" in plan.speed.basis
    assert ["no profile knows NVIDIA H210X"] == [
        note.partition(": ")[2].partition(";")[0] for note in plan.inventory.notes
    ]


def test_a_saved_plan_carries_the_card() -> None:
    """What was made up of the driver's words is in the plan's JSON, and read back from it."""
    plan = planned()

    assert plan == decision_from(encode(plan).decode(), name="plan.json")
    assert plan.candidate.gpu == plan.inventory.strangers[0].id == "unknown-nvidia-h210x"


def test_without_clocks_the_slowest_of_its_generation() -> None:
    """A driver that tells no clocks leaves the least bandwidth that a kin of the card has."""
    gpu = stranger(replace(CARD, memory_clock_max=None), CATALOG)
    least = min(
        g.bandwidth.bytes_per_second
        for g in CATALOG.gpus.values()
        if g.generation == "sm90" and g.bandwidth is not None
    )

    assert not isinstance(gpu, str)
    assert gpu.bandwidth is not None
    assert least == gpu.bandwidth.bytes_per_second


def test_an_unknown_generation_is_left_out_with_its_name() -> None:
    """Nobody knows what computes on compute capability 99.9, so it is no card of a plan."""
    inventory = inventory_from_facts([box(replace(CARD, compute_capability="99.9"))], CATALOG)

    assert 0 == inventory.nodes[0].gpus
    assert "compute capability (99.9)" in inventory.notes[0]


def test_a_card_without_memory_is_left_out() -> None:
    """Without a size there is nothing to plan with."""
    said = stranger(replace(CARD, memory_total=None), CATALOG)

    assert said == "the driver does not say how much memory it has"


def test_no_links_are_pcie() -> None:
    """A card whose peers are not seen over NVLink is alone on its bus."""
    gpu = stranger(replace(CARD, peers=()), CATALOG)

    assert not isinstance(gpu, str)
    assert ("pcie", 1) == (gpu.interconnect.kind, gpu.interconnect.domain)
