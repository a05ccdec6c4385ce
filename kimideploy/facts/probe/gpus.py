"""The GPUs by the first way that is open."""

import os
import time
from typing import Callable, Tuple

from kimideploy.facts.probe.base import Facts, Unknown, under
from kimideploy.facts.probe.nvidia_smi import over_nvidia_smi
from kimideploy.facts.probe.nvml import over_nvml
from kimideploy.facts.probe.rocm_smi import over_rocm_smi
from kimideploy.facts.probe.vendor import Refused, cuda_library, kernel_module, pci_gpus


def about_gpus(root: str, unknown: Unknown, deadline: float) -> Facts:
    """Return the GPUs by the first way that is open: NVML, nvidia-smi, rocm-smi."""
    end = time.monotonic() + deadline
    ways = (
        ("NVML", lambda: over_nvml(root, unknown)),
        ("nvidia-smi", lambda: over_nvidia_smi(root, unknown, end)),
        ("rocm-smi", lambda: over_rocm_smi(unknown, end)),
    )  # type: Tuple[Tuple[str, Callable[[], Facts]], ...]
    reasons = []
    for name, way in ways:
        try:
            facts = way()  # type: Facts
        except Refused as refusal:
            reasons.append("%s: %s" % (name, refusal))
            continue
        if name == "nvidia-smi":
            unknown.add("GPUs in full", "; ".join(reasons))
        on_bus, given = pci_gpus(root)["NVIDIA"], len(facts["gpus"])
        if on_bus > given and name != "rocm-smi":
            seen = "the PCI bus shows %d of NVIDIA, the driver gives this process %d"
            unknown.add("GPUs", seen % (on_bus, given))
        facts["driver"]["kernel_module"] = kernel_module(root)
        facts["driver"]["library"] = cuda_library() if name != "rocm-smi" else None
        return facts
    shown = ["%d of %s" % (count, vendor) for vendor, count in pci_gpus(root).items() if count]
    if os.path.isdir(under(root, "/sys/bus/pci/devices")):
        reasons.append("GPUs on the PCI bus: " + (", ".join(shown) or "none"))
    unknown.add("GPUs", "; ".join(reasons))
    version = kernel_module(root)
    return {"driver": {"version": version, "kernel_module": version}} if version else {}
