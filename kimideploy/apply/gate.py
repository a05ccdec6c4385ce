"""Whether the GPUs of this host may be given to an engine: judge what the probe saw. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kimideploy.apply.events import Checked
from kimideploy.engines.site import Site
from kimideploy.facts.types import GpuFacts, HostFacts
from kimideploy.quantities import GIB

#: bytes; a desktop or a monitor takes some hundred MiB, anything more is a process that computes
_FOREIGN = 1 * GIB


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
    checks = [check for gpu in host.gpus for check in _one(gpu)]
    sound = len(host.gpus) - sum(gpu.error is not None for gpu in host.gpus)
    if sound < wanted:
        checks.append(_said("fail", f"{sound} GPUs answer and the plan needs {wanted}"))
    if not any(check.outcome == "fail" for check in checks):
        checks.insert(0, _said("pass", f"{sound} GPUs answer, and nothing else computes on them"))
    return tuple(checks)


def _one(gpu: GpuFacts) -> Iterable[Checked]:
    name = f"GPU {gpu.index}"
    if gpu.error is not None:
        yield _said("fail", f"{name} is lost: {gpu.error}", "reset it, or reboot the host")
        return
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
    if gpu.nvlinks_total and gpu.nvlinks_active is not None:
        down = gpu.nvlinks_total - gpu.nvlinks_active
        if gpu.nvlinks_active and down:
            yield _said("warn", f"{down} of {gpu.nvlinks_total} NVLinks of {name} are down")
    if gpu.persistence is False:
        yield _said("warn", f"{name} is not in persistence mode", "systemctl enable --now"
                    " nvidia-persistenced")  # fmt: skip


def _said(outcome: str, evidence: str, fix: str | None = None) -> Checked:
    return Checked(name="gpus", outcome=outcome, evidence=evidence, fix=fix)  # type: ignore[arg-type]
