"""The GPUs: that they are there, fit, whole, and free.

What the driver wants done with a GPU is NVML's recovery action; there is no table of Xids here,
the kernel's log is evidence. Nothing is reset by us.
"""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.catalog.find import gpu_by_driver_name
from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import GPUS, NVIDIA, PLANNED, check
from kimideploy.doctor.types import Finding
from kimideploy.facts.types import GpuFacts
from kimideploy.quantities import GIB

_XIDS = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"


@check(
    "gpu-lost",
    "blocks",
    scope=GPUS,
    why="one lost GPU hangs the collective operations of all the others",
    link=_XIDS,
)
def gpu_lost(case: Case) -> Iterator[Finding]:
    """The driver still has every GPU."""
    enough = sum(gpu.error is None for gpu in case.cards) >= case.wanted > 0
    for gpu in case.cards:
        if gpu.error is not None:
            yield Finding(
                f"GPU {gpu.index} is lost: {gpu.error}",
                "reset it, or reboot the host",
                "warns" if enough and case.site is not None else None,
            )


@check(
    "gpu-count",
    "blocks",
    scope=GPUS & PLANNED,
    why="an engine that is told more GPUs than there are ends while it starts",
)
def gpu_count(case: Case) -> Iterator[Finding]:
    """As many GPUs answer as the plan uses."""
    sound = sum(gpu.error is None for gpu in case.facts.gpus)
    if not case.facts.gpus:
        why = case.reason("GPUs", "gpus", "driver") or "none is seen"
        yield Finding(
            f"no GPU can be reached: {why}", "load the driver; one that was updated needs a reboot"
        )
    elif sound < case.wanted:
        yield Finding(
            f"{sound} GPUs answer and the plan needs {case.wanted}",
            "plan again for what is here: kimideploy plan",
        )
    else:
        yield Finding(f"{sound} GPUs answer", severity="fine")


@check(
    "gpu-type",
    "blocks",
    scope=GPUS & PLANNED,
    why="the plan's memory and flags are those of another card",
)
def gpu_type(case: Case) -> Iterator[Finding]:
    """The GPUs are the cards the plan was made for."""
    wanted = case.plan.node.gpu
    if wanted not in case.catalog.gpus:
        return
    kinds = [case.kind(gpu) for gpu, _ in case.each("name")]
    others = [gpu.name for gpu, kind in zip(case.gpus, kinds, strict=False) if kind != wanted]
    known = [kind for kind in kinds if kind is not None]
    if others and len(known) == len(kinds):
        yield Finding(
            f"here is {len(others)} × {others[0]}, and the plan is for {wanted}",
            "plan again for what is here: kimideploy plan",
        )


@check(
    "gpu-memory",
    "blocks",
    scope=GPUS & PLANNED,
    why="an engine claims its share at the start and ends if it is not free",
    link="https://github.com/vllm-project/vllm/issues/40652",
)
def gpu_memory(case: Case) -> Iterator[Finding]:
    """The memory that the plan's Fit counts on is free on each GPU."""
    budget = case.plan.plan.fit.budget
    for gpu, now_free in case.each("memory_free"):
        free = now_free + sum(p.used or 0 for p in gpu.processes if p.pid in case.ours)
        if case.ours and free < budget and not any(p.used for p in gpu.processes):
            raise Unseen("the driver does not say what the release that serves now holds")
        if free < budget:
            yield Finding(
                f"GPU {gpu.index} has {free / GIB:.1f} GiB free, and the engine claims"
                f" {budget / GIB:.1f} GiB of it",
                "end what holds it: kimideploy inspect names the processes",
                # Why: llama.cpp claims no share, it takes what its layers need.
                "warns" if case.plan.engine.id == "llamacpp" else None,
            )


@check(
    "gpu-processes",
    "blocks",
    scope=GPUS,
    why="two engines on one GPU end each other, most often at the first long prompt",
)
def gpu_processes(case: Case) -> Iterator[Finding]:
    """Nothing else computes on the GPUs."""
    for gpu in case.gpus:
        others = [process for process in gpu.processes if process.pid not in case.ours]
        used = sum(process.used or 0 for process in others)
        if used > case.bytes("foreign"):
            who = ", ".join(f"{p.name or 'a process'} (pid {p.pid})" for p in others[:3])
            yield Finding(
                f"GPU {gpu.index} is used by {who}: {used / GIB:.1f} GiB", "end that first"
            )


@check(
    "gpu-stale-memory",
    "blocks",
    scope=GPUS,
    why="workers outlive a killed server and keep the memory",
    link="https://github.com/vllm-project/vllm/issues/55510",
)
def gpu_stale_memory(case: Case) -> Iterator[Finding]:
    """No memory of a GPU is held by nobody."""
    source = case.facts.driver.source if case.facts.driver is not None else None
    if source == "rocm-smi":
        raise Unseen("rocm-smi is not asked for processes")
    if case.ours:
        raise Unseen("the release that serves now holds memory, and gives it back")
    for gpu, used in case.each("memory_used"):
        whole = gpu.memory_total == used + (gpu.memory_free or 0)
        # Why: old drivers count what they reserve as used, newer ones beside it.
        taken = used - (gpu.memory_reserved or 0) if whole else used
        if not gpu.processes and taken > 2 * case.bytes("foreign"):
            yield Finding(
                f"{taken / GIB:.1f} GiB of GPU {gpu.index} are taken by nobody the driver shows",
                "a container or a process that died holds it; reset the GPU, or reboot the host",
            )


@check(
    "gpu-mig",
    "blocks",
    scope=NVIDIA,
    why="a GPU that is cut into instances has a fraction of its memory, and no NVLink",
)
def gpu_mig(case: Case) -> Iterator[Finding]:
    """The GPUs are whole, not cut into MIG instances."""
    for gpu, mig in case.each("mig"):
        if mig:
            yield Finding(f"GPU {gpu.index} is cut into MIG instances", "nvidia-smi -mig 0")


@check(
    "gpu-recovery",
    "blocks",
    scope=NVIDIA,
    why="a GPU that the driver wants reset fails in the middle of the work",
    link=_XIDS,
)
def gpu_recovery(case: Case) -> Iterator[Finding]:
    """The driver asks for no reset, drain or reboot."""
    for gpu, recovery in case.each("recovery"):
        if recovery != "none":
            yield Finding(
                f"GPU {gpu.index} is not fit: the driver asks for {recovery}",
                "do that, or take another host; the kernel's log has the Xid",
            )


@check(
    "gpu-rows",
    "blocks",
    scope=NVIDIA,
    why="memory rows that can't be replaced give wrong numbers or end the process",
    link=_XIDS,
)
def gpu_rows(case: Case) -> Iterator[Finding]:
    """No row of a GPU's memory waits to be replaced, or can't be."""
    for gpu, pending in case.each("rows_pending"):
        if gpu.rows_failed:
            yield Finding(
                f"GPU {gpu.index} has broken memory that can't be replaced by spare rows",
                "take another host; the GPU must be exchanged",
            )
        elif pending:
            yield Finding(
                f"GPU {gpu.index} has broken memory rows that the next reset replaces",
                "reset it before the next launch, with nothing running on it",
                "warns",
            )


@check(
    "gpu-ecc",
    "warns",
    scope=NVIDIA,
    why="errors that were not corrected end processes, and rarely come alone",
    link=_XIDS,
)
def gpu_ecc(case: Case) -> Iterator[Finding]:
    """Memory is protected, and no error was left uncorrected."""
    for gpu, errors in case.each("ecc_uncorrected"):
        if errors:
            yield Finding(
                f"GPU {gpu.index} has had {errors} memory errors that were not corrected since the"
                " driver was loaded",
                "kimideploy status shows its Xids; a reset maps the rows out",
            )
    for gpu in case.gpus:
        kind = gpu_by_driver_name(case.catalog, gpu.name or "", gpu.memory_total)
        if gpu.ecc is False and kind is not None and kind.interconnect.kind == "nvlink":
            yield Finding(
                f"ECC of GPU {gpu.index} is off", "nvidia-smi -e 1, and a reboot", "notes"
            )


@check(
    "gpu-xid",
    "warns",
    scope=NVIDIA,
    why="the driver has reported a fault of a GPU since the boot",
    link=_XIDS,
)
def gpu_xid(case: Case) -> Iterator[Finding]:
    """The kernel's log of this boot has no error of a GPU."""
    settings = case.facts.settings
    for xid in case.known(settings.xids if settings is not None else None, "kernel log", "kernel"):
        yield Finding(
            f"Xid {xid.code} at {xid.pci_bus_id}: {xid.line}",
            "look its number up; NVML's recovery action says whether the GPU is fit",
        )


@check(
    "gpu-persistence",
    "warns",
    scope=NVIDIA,
    why="without it the driver forgets the GPUs when nothing runs, and wakes them for seconds each",
    link="https://docs.nvidia.com/deploy/driver-persistence/index.html",
)
def gpu_persistence(case: Case) -> Iterator[Finding]:
    """The GPUs are in persistence mode."""
    off = [gpu.index for gpu, on in case.each("persistence") if on is False]
    if off:
        yield Finding(
            f"{_named(off)} not in persistence mode",
            "systemctl enable --now nvidia-persistenced",
            remedy="persistence",
        )


@check(
    "gpu-throttle",
    "warns",
    scope=NVIDIA,
    why="the slowest GPU sets the pace of all",
)
def gpu_throttle(case: Case) -> Iterator[Finding]:
    """No GPU is held back by heat or power."""
    for gpu, slowdowns in case.each("slowdowns"):
        if slowdowns:
            yield Finding(
                f"GPU {gpu.index} is held back: {', '.join(slowdowns)}", "look at cooling and power"
            )


@check(
    "gpu-power-limit",
    "notes",
    scope=NVIDIA,
    why="a lower power limit costs prefill speed, and estimates are for the usual one",
)
def gpu_power_limit(case: Case) -> Iterator[Finding]:
    """The power limit is the card's usual one."""
    share = case.count("power")
    for gpu, usual in case.each("power_default_watts"):
        if gpu.power_limit_watts is not None and gpu.power_limit_watts < share * usual:
            yield Finding(
                f"GPU {gpu.index} may draw {gpu.power_limit_watts:.0f} of its usual {usual:.0f} W",
                "who set it knows why; kimideploy changes no power limit",
            )


@check(
    "pcie-width",
    "warns",
    scope=NVIDIA,
    why="fewer lanes make loading, and TP without NVLink, as much slower",
)
def pcie_width(case: Case) -> Iterator[Finding]:
    """Every GPU has all the PCIe lanes it can have."""
    for gpu, width in case.each("pcie_width"):
        if width < (gpu.pcie_width_max or 0):
            yield Finding(
                f"GPU {gpu.index} has {width} of {gpu.pcie_width_max} PCIe lanes",
                "reseat the card or its riser, or take another host",
            )


@check(
    "pcie-generation",
    "notes",
    scope=NVIDIA,
    why="a slower slot halves what goes between GPU and host; at idle the link sleeps, so what card"
    " and slot can do at most is compared",
)
def pcie_generation(case: Case) -> Iterator[Finding]:
    """The slots are of the cards' own PCIe generation."""
    for gpu, card in case.each("pcie_generation_card"):
        if gpu.pcie_generation_max is not None and gpu.pcie_generation_max < card:
            yield Finding(
                f"GPU {gpu.index} is of PCIe generation {card}, in a slot of"
                f" {gpu.pcie_generation_max}",
                "look at the BIOS, or take another host",
            )


@check(
    "gpus-hidden",
    "warns",
    scope=GPUS & PLANNED,
    why="the engine counts only the GPUs this variable leaves it",
)
def gpus_hidden(case: Case) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES and the like leave the engine enough GPUs."""
    names = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if case.plan.amd else ()
    for name in ("CUDA_VISIBLE_DEVICES", *names):
        said = case.environment.get(name)
        if said is None:
            continue
        visible = [word for word in said.split(",") if word.strip() and word.strip() != "-1"]
        if len(visible) < case.wanted:
            yield Finding(
                f"{name} is {said!r}: {len(visible)} GPUs, and the plan needs {case.wanted}",
                f"unset {name}",
                "blocks",
            )


def is_coming_up(gpus: tuple[GpuFacts, ...]) -> bool:
    """Return whether the NVSwitches are still being set up, as they are for a while after a boot.

    Then links may be missing, too, and what is seen says nothing yet.
    """
    return any(gpu.fabric in ("not started", "in progress") for gpu in gpus)


def _named(indices: list[int]) -> str:
    if len(indices) == 1:
        return f"GPU {indices[0]} is"
    return f"GPUs {', '.join(str(index) for index in indices)} are"
