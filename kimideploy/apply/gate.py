"""Whether the GPUs of this host may be given to an engine: judge what the probe saw. Pure.

What the driver wants done with a GPU is NVML's recovery action; there is no table of Xids here
(the kernel's log is evidence that `status` shows). Nothing is reset by us.
"""

from __future__ import annotations

from collections.abc import Iterable

from kimideploy.apply.events import Checked
from kimideploy.engines.site import Site
from kimideploy.facts.types import GpuFacts, HostFacts
from kimideploy.quantities import GIB

#: bytes; a desktop or a monitor takes some hundred MiB, anything more is a process that computes
_FOREIGN = 1 * GIB
#: what the probe calls the states before it is up
_COMING_UP = ("not started", "in progress")


def judge(site: Site, host: HostFacts) -> tuple[Checked, ...]:
    """Return every check of the GPUs; a failed one means that starting would be in vain."""
    wanted = site.plan.candidate.gpus_per_node
    if wanted == 0 or site.generation is None:
        return (_said("pass", "the plan uses no GPU"),)
    if not host.gpus:
        why = next((u.reason for u in host.unknown if u.what in ("gpus", "driver")), "none is seen")
        return (
            _said("fail", f"no GPU can be reached: {why}", "load the driver; a driver that was"
            " updated needs a reboot"),
        )  # fmt: skip
    checks = [check for gpu in host.gpus for check in (*_health(gpu), *_use(gpu))]
    if wanted > 1:
        checks += _uneven(host.gpus)
    sound = len(host.gpus) - sum(gpu.error is not None for gpu in host.gpus)
    if sound < wanted:
        checks.append(_said("fail", f"{sound} GPUs answer and the plan needs {wanted}"))
    if not any(check.outcome == "fail" for check in checks):
        checks.insert(0, _said("pass", f"{sound} GPUs answer, and nothing else computes on them"))
    return tuple(checks)


def is_coming_up(host: HostFacts) -> bool:
    """Return whether the NVSwitches are still being set up, as they are for a while after a boot.

    Then links may be missing, too, and what is seen says nothing yet.
    """
    return any(gpu.fabric in _COMING_UP for gpu in host.gpus)


def _health(gpu: GpuFacts) -> Iterable[Checked]:
    name = f"GPU {gpu.index}"
    if gpu.error is not None:
        yield _said("fail", f"{name} is lost: {gpu.error}", "reset it, or reboot the host")
        return
    if gpu.recovery not in (None, "none"):
        yield _said("fail", f"{name} is not fit: the driver asks for {gpu.recovery}",
                    "do that, or take another host; the kernel's log has the Xid")  # fmt: skip
    if gpu.rows_failed:
        yield _said("fail", f"{name} has broken memory that can't be replaced by spare rows",
                    "take another host; the GPU must be exchanged")  # fmt: skip
    elif gpu.rows_pending:
        yield _said("warn", f"{name} has broken memory rows that the next reset replaces",
                    "reset it before the next launch, with nothing running on it")  # fmt: skip
    if gpu.ecc_uncorrected:
        yield _said("warn", f"{name} has had {gpu.ecc_uncorrected} memory errors that were not"
                    " corrected since the driver was loaded", "status shows its Xids")  # fmt: skip
    if gpu.fabric not in (None, "up"):
        yield _said("fail", f"the NVSwitch fabric of {name} is not up: {gpu.fabric}; CUDA would"
                    " fail with error 802", "systemctl status nvidia-fabricmanager, whose version"
                    " must be the driver's")  # fmt: skip
    for reason in gpu.slowdowns or ():
        yield _said("warn", f"{name} is held back: {reason}", "look at cooling and power")
    if gpu.pcie_width is not None and gpu.pcie_width < (gpu.pcie_width_max or 0):
        yield _said("warn", f"{name} has {gpu.pcie_width} of {gpu.pcie_width_max} PCIe lanes")
    if gpu.persistence is False:
        yield _said("warn", f"{name} is not in persistence mode", "systemctl enable --now"
                    " nvidia-persistenced")  # fmt: skip


def _use(gpu: GpuFacts) -> Iterable[Checked]:
    name = f"GPU {gpu.index}"
    if gpu.mig:
        yield _said("fail", f"{name} is cut into MIG instances", "nvidia-smi -mig 0")
    used = sum(process.used or 0 for process in gpu.processes)
    if used > _FOREIGN:
        who = ", ".join(f"{p.name or 'a process'} (pid {p.pid})" for p in gpu.processes[:3])
        yield _said("fail", f"{name} is used by {who}: {used / GIB:.1f} GiB", "end that first")
    elif not gpu.processes and (gpu.memory_used or 0) - (gpu.memory_reserved or 0) > 2 * _FOREIGN:
        taken = ((gpu.memory_used or 0) - (gpu.memory_reserved or 0)) / GIB
        yield _said(
            "fail", f"{taken:.1f} GiB of {name} are taken by nobody the driver shows",
            "a container or a process that died holds it; reset the GPU, or reboot the host",
        )  # fmt: skip


def _uneven(gpus: Iterable[GpuFacts]) -> list[Checked]:
    """Return what is to be said of each GPU with fewer NVLinks than its like.

    Between switches all have the same, and one with fewer is broken. Cards with bridges may well
    differ: some have none.
    """
    sound = [gpu for gpu in gpus if gpu.error is None and gpu.nvlinks_active is not None]
    most: dict[str | None, int] = {}
    for gpu in sound:
        most[gpu.name] = max(most.get(gpu.name, 0), gpu.nvlinks_active or 0)
    return [
        _said(
            "fail" if gpu.fabric is not None else "warn",
            f"GPU {gpu.index} has {gpu.nvlinks_active} NVLinks up, and others of its kind"
            f" have {most[gpu.name]}", "reboot the host; if it stays, take another one",
        )
        for gpu in sound
        if not gpu.mig and (gpu.nvlinks_active or 0) < most[gpu.name]
    ]  # fmt: skip


def _said(outcome: str, evidence: str, fix: str | None = None) -> Checked:
    return Checked(name="gpus", outcome=outcome, evidence=evidence, fix=fix)  # type: ignore[arg-type]
