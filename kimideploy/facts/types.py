"""HostFacts: what one machine is. The probe prints it, every later command can replay it.

Absent (``None``) means unknown, never zero; each unknown that has a reason is listed in
`HostFacts.unknown`. All sizes are bytes.
"""

from __future__ import annotations

import msgspec

SCHEMA = "kimideploy.facts/1"


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything that is read from or written to a file."""


class GpuProcess(Strict, frozen=True):
    """A process that holds memory on a GPU; `used` is bytes, None if the driver hides it."""

    pid: int
    name: str | None = None
    used: int | None = None


class GpuPeer(Strict, frozen=True):
    """How this GPU reaches another one of the node."""

    index: int
    #: nvlink, pix (one PCIe switch), pxb, phb (one host bridge), node (one NUMA node), sys
    link: str
    #: number of active NVLinks between the two, if the driver says so
    nvlinks: int | None = None


class GpuFacts(Strict, frozen=True):
    """One GPU as the driver sees it; `error` is set when the driver lost it."""

    index: int
    name: str | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    memory_free: int | None = None
    memory_reserved: int | None = None
    #: "9.0"; AMD prints "gfx942"
    compute_capability: str | None = None
    mig: bool | None = None
    ecc: bool | None = None
    persistence: bool | None = None
    power_limit_watts: float | None = None
    #: MHz, and bits: together with two transfers a clock they give the memory's bandwidth
    memory_clock_max: int | None = None
    memory_bus_width: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    #: links that are up, and links the driver knows of
    nvlinks_active: int | None = None
    nvlinks_total: int | None = None
    numa_node: int | None = None
    #: what the driver says must be done before the GPU is used again, None where it can't say;
    #: "none", else a word of NVML's list of recovery actions
    recovery: str | None = None
    #: rows of its memory that wait for a reset to be replaced, and those that can't be
    rows_pending: bool | None = None
    rows_failed: bool | None = None
    #: memory errors that were not corrected, since the driver was loaded
    ecc_uncorrected: int | None = None
    #: of the NVSwitches it hangs on: "up", or why not; None where there are none
    fabric: str | None = None
    #: why its clocks are held back by the hardware, at this moment
    slowdowns: tuple[str, ...] | None = None
    peers: tuple[GpuPeer, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None


class DriverFacts(Strict, frozen=True):
    """The GPU driver: its version and the newest CUDA it can run, e.g. "580.159.04" and "13.0"."""

    version: str | None = None
    cuda: str | None = None
    #: nvml, nvidia-smi or rocm-smi
    source: str | None = None


class CpuFacts(Strict, frozen=True):
    """The processors of the node; `cores` are physical ones over all sockets."""

    model: str | None = None
    architecture: str | None = None
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    numa_nodes: int | None = None
    #: the flags engines ask for, as the kernel spells them: avx2, avx512f, avx512_bf16, amx_tile …
    flags: tuple[str, ...] | None = None


class MemoryFacts(Strict, frozen=True):
    """Host memory; `limit` is the smallest cgroup limit above the probe, None if there is none."""

    total: int | None = None
    available: int | None = None
    limit: int | None = None
    swap: int | None = None
    shm_total: int | None = None
    shm_free: int | None = None


class DiskFacts(Strict, frozen=True):
    """One mounted file system."""

    mount: str
    filesystem: str | None = None
    device: str | None = None
    total: int | None = None
    free: int | None = None


class EngineFacts(Strict, frozen=True):
    """An engine that is installed; `version` None means it could not be told."""

    engine: str
    path: str
    version: str | None = None


class PortFacts(Strict, frozen=True):
    """A TCP port something listens on."""

    port: int
    address: str


class Unknown(Strict, frozen=True):
    """A fact the probe could not have, and why."""

    what: str
    reason: str


class HostFacts(Strict, frozen=True):
    """One node, one OS image. The same file is a replay, a test fixture and a bug report."""

    schema: str = SCHEMA
    hostname: str | None = None
    #: Linux, Darwin, Windows
    system: str | None = None
    distribution: str | None = None
    kernel: str | None = None
    glibc: str | None = None
    python: str | None = None
    #: version of the probe that wrote this
    probe: str | None = None
    cpu: CpuFacts = CpuFacts()
    memory: MemoryFacts = MemoryFacts()
    disks: tuple[DiskFacts, ...] = ()
    driver: DriverFacts | None = None
    gpus: tuple[GpuFacts, ...] = ()
    engines: tuple[EngineFacts, ...] = ()
    ports: tuple[PortFacts, ...] = ()
    unknown: tuple[Unknown, ...] = ()
