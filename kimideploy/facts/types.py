"""HostFacts: what one machine is. The probe prints it, every later command can replay it.

Absent (``None``) means unknown, never zero; each unknown that has a reason is listed in
`HostFacts.unknown`. All sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

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
    #: "ok" where one may read the other's memory, else why not
    p2p: str | None = None


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
    power_default_watts: float | None = None
    #: MHz, and bits: together with two transfers a clock they give the memory's bandwidth
    memory_clock_max: int | None = None
    memory_bus_width: int | None = None
    pcie_generation: int | None = None
    #: the most that card and slot can do together, and the card alone
    pcie_generation_max: int | None = None
    pcie_generation_card: int | None = None
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
    #: the kernel module that is loaded, and the libcuda that a program would load
    kernel_module: str | None = None
    library: str | None = None


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
    #: bytes of ZFS's cache that it would give back
    arc: int | None = None
    shm_total: int | None = None
    shm_free: int | None = None


Limit = int | Literal["unlimited"]


class LimitFacts(Strict, frozen=True):
    """What a process started here may take at most: bytes locked, files open, tasks."""

    memlock: Limit | None = None
    nofile: Limit | None = None
    tasks: Limit | None = None


class UnitFacts(LimitFacts, frozen=True):
    """The unit of an engine that is deployed here: its limits, and its processes."""

    pids: tuple[int, ...] = ()


class XidFacts(Strict, frozen=True):
    """An error of a GPU in the kernel's log of this boot, with its line."""

    pci_bus_id: str
    code: int
    line: str


class KernelFacts(Strict, frozen=True):
    """What the kernel is set to."""

    numa_balancing: bool | None = None
    #: always, madvise or never
    transparent_hugepages: str | None = None
    #: bytes set aside for huge pages
    hugepages_reserved: int | None = None
    #: of all processors, each once
    governors: tuple[str, ...] | None = None
    #: modules of interest that are loaded
    modules: tuple[str, ...] | None = None
    #: how the IOMMU treats the GPUs: identity, DMA …; empty: it does not stand before them
    iommu: tuple[str, ...] | None = None
    #: PCIe bridges that redirect what one device says to another
    acs_redirects: int | None = None
    xids: tuple[XidFacts, ...] | None = None


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
    #: versions of packages beside it, and what it asks of them in its own words
    packages: dict[str, str | None] = {}
    wants: tuple[str, ...] = ()
    #: the CUDA its PyTorch was built for
    cuda: str | None = None
    #: folders of packages that would be imported instead of its own
    shadowed: tuple[str, ...] = ()
    #: what it needs and can't import, with the reason; None: nobody tried
    broken_imports: tuple[str, ...] | None = None


class PortFacts(Strict, frozen=True):
    """A TCP port something listens on."""

    port: int
    address: str


class ClockFacts(Strict, frozen=True):
    """The clock: seconds since 1970 when it was read, and whether something keeps it right."""

    at: float | None = None
    synchronized: bool | None = None


class InterfaceFacts(Strict, frozen=True):
    """A network interface; `megabits` a second, None where it does not say."""

    name: str
    up: bool = False
    mtu: int | None = None
    megabits: int | None = None
    virtual: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def is_real(self) -> bool:
        """Whether it leads out of the machine: a card, or several of them bonded."""
        return not self.virtual or self.name.startswith(("bond", "team"))


class RdmaFacts(Strict, frozen=True):
    """A port of an InfiniBand or RoCE device: "ACTIVE", "InfiniBand", gigabits a second."""

    device: str
    state: str | None = None
    link: str | None = None
    gigabits: int | None = None


class ServiceFacts(Strict, frozen=True):
    """A service that is installed, and its state: active, inactive, failed."""

    name: str
    state: str | None = None


class ContainerFacts(Strict, frozen=True):
    """What could run a container with GPUs here; `inside` names the one this is."""

    runtimes: tuple[str, ...] = ()
    toolkit: bool = False
    cdi: bool = False
    #: docker is told of NVIDIA's runtime
    docker_runtime: bool = False
    inside: str | None = None


class FolderFacts(Strict, frozen=True):
    """A folder of weights as it lies there: bytes by name, and the names in its index.

    `promised` is how long each shard is by its own header, where that can be read.
    """

    path: str
    exists: bool = False
    sizes: dict[str, int] = {}
    shards: tuple[str, ...] | None = None
    promised: dict[str, int] = {}
    broken_index: str | None = None
    filesystem: str | None = None
    #: bytes free there, and bytes a second that were read; None: not measured
    free: int | None = None
    read_rate: float | None = None


class ListenFacts(Strict, frozen=True):
    """Whether a port that is wanted can be listened on, and who does, or why not."""

    host: str
    port: int
    state: Literal["free", "taken", "forbidden"]
    holder: str | None = None
    pids: tuple[int, ...] = ()


class FileFacts(Strict, frozen=True):
    """A file that must be private: its mode, and the user it belongs to."""

    path: str
    exists: bool | None = None
    mode: int | None = None
    owner: int | None = None
    error: str | None = None


class ProgramFacts(Strict, frozen=True):
    """Where the first word of a command leads; None: nowhere."""

    word: str
    path: str | None = None
    #: the file that links lead to
    real: str | None = None


class ReachFacts(Strict, frozen=True):
    """Whether a URL or host:port answers from here.

    refused: the way is open and nobody listens. `skew`: seconds this clock is ahead of theirs.
    """

    target: str
    state: Literal["open", "refused", "no"]
    reason: str | None = None
    skew: float | None = None


class Aims(Strict, frozen=True, omit_defaults=True):
    """What a plan wants to know of a machine, besides what every machine is asked."""

    #: the folder of the weights, and seconds in which reading it is measured
    weights: str | None = None
    measure: float = 0
    #: addresses with ports that will be listened on, and those that must answer
    listen: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    #: files that hold secrets
    files: tuple[str, ...] = ()
    #: programs that will be started, and folders they are looked for in first
    programs: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    #: try the imports of the engines
    imports: bool = False


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
    settings: KernelFacts | None = None
    limits: LimitFacts | None = None
    #: variables that change how an engine runs, and the folder that caches go to
    environment: tuple[tuple[str, str], ...] = ()
    home: str | None = None
    disks: tuple[DiskFacts, ...] = ()
    driver: DriverFacts | None = None
    gpus: tuple[GpuFacts, ...] = ()
    engines: tuple[EngineFacts, ...] = ()
    ports: tuple[PortFacts, ...] = ()
    clock: ClockFacts | None = None
    interfaces: tuple[InterfaceFacts, ...] = ()
    rdma: tuple[RdmaFacts, ...] | None = None
    #: those of interest that are installed; None: no systemd runs here
    services: tuple[ServiceFacts, ...] | None = None
    #: of an engine that is deployed here
    unit: UnitFacts | None = None
    fabric_manager: str | None = None
    containers: ContainerFacts | None = None
    #: what a plan wanted to know; None: no plan asked
    weights: FolderFacts | None = None
    listen: tuple[ListenFacts, ...] | None = None
    reach: tuple[ReachFacts, ...] | None = None
    files: tuple[FileFacts, ...] | None = None
    programs: tuple[ProgramFacts, ...] | None = None
    unknown: tuple[Unknown, ...] = ()
