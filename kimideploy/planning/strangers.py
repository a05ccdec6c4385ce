"""Cards that no profile knows, as far as the driver describes them.

What it does not say is taken from the profiles of the card's generation and marked as a guess,
so that a plan for such a card is possible and its error bars are the widest there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from kimideploy.catalog.types import (
    Bandwidth,
    Catalog,
    Compute,
    Generation,
    Gpu,
    GpuMemory,
    Interconnect,
    Source,
)
from kimideploy.facts.types import GpuFacts
from kimideploy.planning.evidence import DRIVER
from kimideploy.planning.types import Inventory
from kimideploy.quantities import Bytes

#: memory moves data on both edges of its clock; with this an H200's 3,201 MHz and 6,144 bits give
#: 4.9 TB/s where the data sheet has 4.8, an RTX 4090's 10,501 MHz and 384 bits 1.008 TB/s
_EDGES = 2
#: share of the driver's total that an engine does not see: 0.4 % on H200, and some to spare
_UNSEEN = 0.01
_MHZ = 10**6
_BITS = 8


def stranger(fact: GpuFacts, catalog: Catalog) -> Gpu | str:
    """Return a profile of the card made from *fact*, or in words why there can't be one."""
    if fact.name is None or fact.memory_total is None:
        return "the driver does not say how much memory it has"
    generation = _generation(fact.compute_capability, catalog)
    if generation is None:
        kind = fact.compute_capability or "none that the driver names"
        return f"nothing is known of its compute capability ({kind})"
    kin = [gpu for gpu in catalog.gpus.values() if gpu.generation == generation.id]
    bandwidth = _bandwidth(fact, kin)
    return Gpu(
        id=f"unknown-{re.sub(r'[^a-z0-9]+', '-', fact.name.lower()).strip('-')[:48]}",
        name=fact.name,
        generation=generation.id,
        source=DRIVER,
        sources={DRIVER: Source(url="NVML on the machine itself", date="when it was inspected")},
        aliases=(),
        driver_names=(re.escape(fact.name),),
        memory=GpuMemory(
            usable=Bytes(int(fact.memory_total * (1 - _UNSEEN))),
            source=DRIVER,
            guess=True,
            note="the driver's total less one percent",
        ),
        bandwidth=bandwidth,
        compute=_compute(bandwidth, kin),
        interconnect=_interconnect(fact, kin),
    )


def knowing(catalog: Catalog, inventory: Inventory) -> Catalog:
    """Return *catalog* with the cards that *inventory* brings along."""
    if not inventory.strangers:
        return catalog
    return replace(catalog, gpus={**catalog.gpus, **{gpu.id: gpu for gpu in inventory.strangers}})


def _generation(capability: str | None, catalog: Catalog) -> Generation | None:
    return next(
        (one for one in catalog.generations.values() if one.compute_capability == capability), None
    )


def _bandwidth(fact: GpuFacts, kin: Sequence[Gpu]) -> Bandwidth | None:
    """Bytes per second by clock and bus; else those of the slowest card of the generation."""
    if fact.memory_clock_max and fact.memory_bus_width:
        rate = _EDGES * fact.memory_clock_max * _MHZ * fact.memory_bus_width // _BITS
        return Bandwidth(bytes_per_second=Bytes(rate), source=DRIVER, guess=True)
    known = [gpu.bandwidth for gpu in kin if gpu.bandwidth is not None]
    slowest = min(known, key=lambda one: one.bytes_per_second, default=None)
    return replace(slowest, source=DRIVER, guess=True) if slowest is not None else None


def _compute(bandwidth: Bandwidth | None, kin: Sequence[Gpu]) -> Compute | None:
    """What the card of the generation computes whose memory is most like this one's."""
    if bandwidth is None:
        return None
    near = min(
        (gpu for gpu in kin if gpu.bandwidth is not None and gpu.compute is not None),
        key=lambda gpu: _apart(gpu, bandwidth),
        default=None,
    )
    if near is None or near.compute is None:
        return None
    return replace(near.compute, source=DRIVER, guess=True)


def _apart(gpu: Gpu, bandwidth: Bandwidth) -> int:
    return abs((gpu.bandwidth or bandwidth).bytes_per_second - bandwidth.bytes_per_second)


def _interconnect(fact: GpuFacts, kin: Sequence[Gpu]) -> Interconnect:
    """NVLink as wide as the driver sees it, at the least speed of the generation; else PCIe."""
    peers = sum(peer.link == "nvlink" for peer in fact.peers)
    kind: Literal["nvlink", "pcie"] = "nvlink" if peers else "pcie"
    alike = [gpu.interconnect.bytes_per_second for gpu in kin if gpu.interconnect.kind == kind]
    return Interconnect(
        kind=kind,
        domain=1 + peers,
        source=DRIVER,
        bytes_per_second=min((rate for rate in alike if rate is not None), default=None),
        guess=True,
    )
