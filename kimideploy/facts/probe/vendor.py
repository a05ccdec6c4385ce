"""What the ways to the GPUs have in common."""

import glob
import os
import re
from typing import Dict, Optional

from kimideploy.facts.probe.base import find_program, number, read_or, run, under


class Refused(Exception):
    """A way to the GPUs that is not open, and why."""


def pci_gpus(root: str) -> Dict[str, int]:
    """Return how many GPUs of each vendor the PCI bus shows, with or without a driver."""
    vendors = {"0x10de": "NVIDIA", "0x1002": "AMD"}
    # PCI classes: VGA, 3D and other display controllers, processing accelerators
    classes = ("0x0300", "0x0302", "0x0380", "0x1200")
    counts = {"NVIDIA": 0, "AMD": 0}
    for folder in glob.glob(under(root, "/sys/bus/pci/devices/*")):
        vendor = vendors.get(read_or(folder + "/vendor").strip())
        if vendor is not None and read_or(folder + "/class").startswith(classes):
            counts[vendor] += 1
    return counts


def kernel_module(root: str) -> Optional[str]:
    """Return the version of the NVIDIA kernel module that is loaded."""
    text = read_or(under(root, "/proc/driver/nvidia/version"))
    found = re.search(r"Kernel Module\b.*?\s([0-9]+\.[0-9.]+)\s", text)
    return found.group(1) if found else None


def numa_of(root: str, bus_id: Optional[str]) -> Optional[int]:
    """Return the NUMA node a PCI device hangs on; NVML's bus ids have four zeros too many."""
    if not bus_id:
        return None
    device = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", bus_id.lower())
    node = number(read_or(under(root, "/sys/bus/pci/devices/%s/numa_node" % device)))
    return node if node is not None and node >= 0 else None


def bare_name(words: str) -> str:
    """Return a process's name without options, which may hold secrets."""
    return words.partition(" -")[0]


def cuda_library() -> Optional[str]:
    """Return the version of the libcuda.so.1 that a program would load, by its file's name.

    It is the kernel module's own, or one for forward compatibility that stands before it.
    """
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    found = [os.path.join(folder, "libcuda.so.1") for folder in folders]
    ldconfig = find_program("ldconfig", "/sbin", "/usr/sbin")
    if ldconfig is not None:
        try:
            text = run([ldconfig, "-p"], 3.0)[1]
        except (OSError, TimeoutError):
            text = ""
        found += re.findall(r"libcuda\.so\.1 \([^)]*64[^)]*\) => (\S+)", text)
    for path in found:
        if os.path.exists(path):
            version = re.search(r"libcuda\.so\.([0-9]+\.[0-9.]+)$", os.path.realpath(path))
            return version.group(1) if version else None
    return None
