"""How GPUs reach each other: NVLink, the switches' fabric, PCIe."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.catalog.find import gpu_by_driver_name
from kimideploy.catalog.types import Gpu
from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import NVIDIA, SEVERAL_GPUS, check
from kimideploy.doctor.types import Finding
from kimideploy.facts.types import GpuFacts

_FABRIC = "https://docs.nvidia.com/deploy/nvml-api/group__nvmlFabricDefs.html"
_NCCL = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"
_BLACKWELL = ("sm100", "sm103")


@check(
    "nvlink-missing",
    "blocks",
    scope=SEVERAL_GPUS & NVIDIA,
    why="these cards are made to talk over NVLink; over PCIe each token waits for the bus",
)
def nvlink_missing(case: Case) -> Iterator[Finding]:
    """Cards that are sold with NVLink have it up."""
    if case.site is not None and case.site.layout.tp == 1:
        return
    for gpu, active in case.each("nvlinks_active"):
        kind = _kind(case, gpu)
        if kind is None or kind.interconnect.kind != "nvlink" or gpu.mig:
            continue
        if not active:
            yield Finding(
                f"GPU {gpu.index}, a {kind.name}, has no NVLink up",
                "reboot the host; if it stays, take another one",
            )


@check(
    "nvlink-uneven",
    "blocks",
    scope=SEVERAL_GPUS & NVIDIA,
    why="between switches all have the same number of links, and one with fewer is broken; cards"
    " with bridges may well differ",
    link="https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html",
)
def nvlink_uneven(case: Case) -> Iterator[Finding]:
    """GPUs of a kind have the same number of NVLinks up."""
    found = [(gpu, active) for gpu, active in case.each("nvlinks_active") if not gpu.mig]
    most: dict[str | None, int] = {}
    for gpu, active in found:
        most[gpu.name] = max(most.get(gpu.name, 0), active)
    for gpu, active in found:
        if active < most[gpu.name]:
            yield Finding(
                f"GPU {gpu.index} has {active} NVLinks up, and others of its kind have"
                f" {most[gpu.name]}",
                "reboot the host; if it stays, take another one",
                "blocks" if gpu.fabric is not None else "warns",
            )


@check(
    "gpu-p2p",
    "warns",
    scope=SEVERAL_GPUS & NVIDIA,
    why="without it what GPUs say to each other goes through host memory",
    link=_NCCL,
)
def gpu_p2p(case: Case) -> Iterator[Finding]:
    """Every GPU may read the others' memory."""
    told = [(gpu, peer) for gpu in case.gpus for peer in gpu.peers if peer.p2p is not None]
    case.known(told or None, "peer access", "GPUs in full")
    refused: dict[str, list[str]] = {}
    for gpu, peer in told:
        if peer.p2p != "ok" and gpu.index < peer.index:
            refused.setdefault(str(peer.p2p), []).append(f"{gpu.index}-{peer.index}")
    for why, pairs in refused.items():
        more = f" and {len(pairs) - 4} more pairs" if len(pairs) > 4 else ""  # noqa: PLR2004
        of_the_card = "GPU" in why or "not supported" in why
        yield Finding(
            f"no peer access between GPUs {', '.join(pairs[:4])}{more}: {why}",
            "these cards have none; expect TP to be slower"
            if of_the_card
            else "bare metal: disable ACS and the IOMMU in the BIOS; a VM: ask its provider for it",
            "notes" if of_the_card else None,
        )


@check(
    "fabric",
    "blocks",
    scope=NVIDIA,
    why="until the NVSwitches are set up, CUDA fails with error 802",
    link=_FABRIC,
)
def fabric(case: Case) -> Iterator[Finding]:
    """The fabric of the NVSwitches is up."""
    if _is_unseen(case):
        raise Unseen(case.reason("GPUs in full") or "nvidia-smi is not asked for it")
    for gpu in case.gpus:
        if gpu.fabric not in (None, "up"):
            yield Finding(
                f"the NVSwitch fabric of GPU {gpu.index} is not up: {gpu.fabric}; CUDA would fail"
                " with error 802",
                "systemctl status nvidia-fabricmanager, whose version must be the driver's",
            )


@check(
    "fabric-manager",
    "blocks",
    scope=SEVERAL_GPUS & NVIDIA,
    why="one of another version than the driver's does not start, and CUDA fails with error 802",
    link=_FABRIC,
)
def fabric_manager(case: Case) -> Iterator[Finding]:
    """The fabric manager runs, and is of the driver's version."""
    facts, driver = case.facts, case.facts.driver
    states = {one.name: one.state for one in facts.services or ()}
    state = states.get("nvidia-fabricmanager.service")
    switched = [gpu for gpu in case.gpus if gpu.fabric is not None]
    down = any(gpu.fabric != "up" for gpu in switched)
    if state not in (None, "active") and (down or (not switched and _are_switched(case))):
        yield Finding(
            f"nvidia-fabricmanager is {state}",
            "systemctl enable --now nvidia-fabricmanager",
            # Why: boards with links but no switches need none, and NVML may not say which it is.
            None if down else "warns",
        )
    version = driver.version if driver is not None else None
    mine = facts.fabric_manager
    if mine is not None and version is not None and mine != version and switched:
        yield Finding(
            f"the fabric manager is {mine} and the driver {version}",
            f"install the fabric manager of the driver's version: {version}",
            "blocks" if any(gpu.fabric != "up" for gpu in switched) else "warns",
        )


@check(
    "fabric-umad",
    "blocks",
    scope=SEVERAL_GPUS & NVIDIA,
    why="the fabric manager of HGX B200 speaks to the switches through it",
    link="https://github.com/spectrocloud/CanvOS/pull/700",
)
def fabric_umad(case: Case) -> Iterator[Finding]:
    """On HGX boards of Blackwell the module ib_umad is loaded."""
    settings = case.facts.settings
    boards = [gpu for gpu in case.gpus if gpu.fabric is not None and _is_blackwell(case, gpu)]
    if not boards:
        return
    modules = case.known(settings.modules if settings is not None else None, "kernel")
    if "ib_umad" not in modules and any(gpu.fabric != "up" for gpu in boards):
        yield Finding(
            "ib_umad is not loaded, and the fabric is not up",
            "modprobe ib_umad, and restart nvidia-fabricmanager",
        )


@check(
    "pcie-acs",
    "warns",
    scope=SEVERAL_GPUS & NVIDIA,
    why="bridges that redirect send what GPUs say to each other through the root: slow, and NCCL"
    " was seen to hang",
    link=_NCCL,
)
def pcie_acs(case: Case) -> Iterator[Finding]:
    """No PCIe bridge redirects what GPUs say to each other."""
    if not _over_pcie(case):
        return
    settings = case.facts.settings
    count = case.known(
        settings.acs_redirects if settings is not None else None, "PCIe access control", "kernel"
    )
    if count:
        yield Finding(
            f"{count} PCIe bridges redirect requests or answers (ACS)",
            "bare metal: disable ACS in the BIOS; a VM needs it",
        )


@check(
    "iommu",
    "warns",
    scope=SEVERAL_GPUS & NVIDIA,
    why="addresses that are translated keep GPUs from reading each other's memory directly",
    link=_NCCL,
)
def iommu(case: Case) -> Iterator[Finding]:
    """The IOMMU does not stand between the GPUs."""
    if not _over_pcie(case):
        return
    settings = case.facts.settings
    kinds = case.known(settings.iommu if settings is not None else None, "kernel", "PCI")
    translated = [kind for kind in kinds if kind != "identity"]
    if translated:
        yield Finding(
            f"the IOMMU translates for the GPUs ({', '.join(translated)})",
            "bare metal: iommu=pt on the kernel's command line, or off in the BIOS",
        )


def _over_pcie(case: Case) -> bool:
    """Whether some of the GPUs reach others over PCIe alone."""
    return any(peer.link != "nvlink" for gpu in case.gpus for peer in gpu.peers)


def _is_unseen(case: Case) -> bool:
    """Whether the cards may hang on switches, and the way to them does not tell."""
    driver = case.facts.driver
    source = driver.source if driver is not None else None
    return source == "nvidia-smi" and _are_switched(case)


def _are_switched(case: Case) -> bool:
    """Whether the cards are of a kind, and as many, as stand on boards with NVSwitches."""
    kinds = [_kind(case, gpu) for gpu in case.gpus]
    return len(kinds) >= case.count("switched") and all(
        kind is not None and kind.interconnect.kind == "nvlink" for kind in kinds
    )


def _kind(case: Case, gpu: GpuFacts) -> Gpu | None:
    return gpu_by_driver_name(case.catalog, gpu.name or "", gpu.memory_total)


def _is_blackwell(case: Case, gpu: GpuFacts) -> bool:
    kind = _kind(case, gpu)
    return kind is not None and kind.generation in _BLACKWELL
