"""What the kernel is set to: memory, clocks, PCIe, modules, and the GPU errors in its log."""

import glob
import os
import re
import struct
from typing import Dict, List, Optional

from kimideploy.facts.probe.base import (
    Facts,
    Unknown,
    find_program,
    needs_linux,
    number,
    read_or,
    run,
    said,
    under,
)

#: seconds for the kernel's log, and the newest lines of it that are searched
LOG_DEADLINE, LOG_LINES = 3.0, 5000
#: modules that a launch may need
MODULES = ("nvidia", "nvidia_uvm", "nvidia_peermem", "ib_umad", "ib_uverbs", "amdgpu")
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): ([0-9]+)")
#: PCI Express: the extended capability of access control, and its two redirect bits
ACS, REDIRECT = 0x000D, 0x0C


def about_kernel(root: str, unknown: Unknown) -> Facts:
    if not os.path.isdir(under(root, "/proc/sys/kernel")):
        unknown.add("kernel", needs_linux("/proc/sys/kernel"))
        return {}
    balancing = number(read_or(under(root, "/proc/sys/kernel/numa_balancing")))
    huge = re.search(
        r"\[(\w+)\]", read_or(under(root, "/sys/kernel/mm/transparent_hugepage/enabled"))
    )
    facts = {
        "numa_balancing": None if balancing is None else balancing != 0,
        "transparent_hugepages": huge.group(1) if huge else None,
        "hugepages_reserved": reserved(root),
        "governors": governors(root),
        "modules": modules(root),
        "iommu": iommu(root),
        "acs_redirects": acs_redirects(root, unknown),
        "xids": xids(unknown),
    }  # type: Facts
    if balancing is None:
        # Why no failure: a kernel without the feature has no such file.
        unknown.add("NUMA balancing", "this kernel has no /proc/sys/kernel/numa_balancing")
    return {"settings": facts}


def reserved(root: str) -> Optional[int]:
    """Return the bytes set aside for huge pages, which nothing else can have."""
    text = read_or(under(root, "/proc/meminfo"))
    found = dict(re.findall(r"^(HugePages_Total|Hugepagesize):\s+([0-9]+)", text, re.MULTILINE))
    if len(found) != 2:
        return None
    return int(found["HugePages_Total"]) * int(found["Hugepagesize"]) * 1024


def governors(root: str) -> Optional[List[str]]:
    """Return the governors of all processors, each once; None where clocks are not ours to set."""
    paths = glob.glob(under(root, "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    found = {read_or(path).strip() for path in paths}
    return sorted(found - {""}) or None


def modules(root: str) -> Optional[List[str]]:
    """Return which modules of interest are loaded, built in ones too."""
    if not os.path.isdir(under(root, "/sys/module")):
        return None
    return [name for name in MODULES if os.path.isdir(under(root, "/sys/module/" + name))]


def iommu(root: str) -> Optional[List[str]]:
    """Return how the IOMMU treats the GPUs of the bus: identity, DMA …, each once.

    An empty list: no IOMMU stands before them. None: there is no bus to look at.
    """
    devices = glob.glob(under(root, "/sys/bus/pci/devices/*"))
    if not devices:
        return None
    shown = [
        path
        for path in devices
        if read_or(path + "/class").startswith(("0x0300", "0x0302", "0x0380", "0x1200"))
        and read_or(path + "/vendor").strip() in ("0x10de", "0x1002")
    ]
    kinds = {read_or(path + "/iommu_group/type").strip() for path in shown}
    return sorted(kinds - {""})


def acs_redirects(root: str, unknown: Unknown) -> Optional[int]:
    """Return how many PCIe bridges send what one device says to another up to the root first."""
    count, closed, bridges = 0, False, 0
    for path in glob.glob(under(root, "/sys/bus/pci/devices/*")):
        if not read_or(path + "/class").startswith("0x0604"):
            continue
        bridges += 1
        try:
            with open(path + "/config", "rb") as file:
                config = file.read(4096)
        except OSError:
            config = b""
        if len(config) <= 64:
            closed = True
        elif redirects(config):
            count += 1
    if closed:
        unknown.add("PCIe access control", "the kernel shows the bridges' settings to root alone")
        return None
    return count if bridges else None


def redirects(config: bytes) -> bool:
    """Return whether a bridge's configuration space says that it redirects."""
    at, seen = 0x100, set()  # type: ignore[var-annotated,unused-ignore]
    while 0x100 <= at <= len(config) - 8 and at not in seen:
        seen.add(at)
        (head,) = struct.unpack_from("<I", config, at)
        if head & 0xFFFF == ACS:
            (control,) = struct.unpack_from("<H", config, at + 6)
            return bool(control & REDIRECT)
        at = head >> 20
    return False


def xids(unknown: Unknown) -> Optional[List[Facts]]:
    """Return the GPU errors that the kernel's log of this boot has, the last line of each kind."""
    program, argv = find_program("journalctl"), []  # type: ignore[var-annotated,unused-ignore]
    if program is not None:
        argv = [program, "--no-pager", "-q", "-b", "_TRANSPORT=kernel", "-o", "cat"]
        argv += ["-n", str(LOG_LINES)]
    else:
        program = find_program("dmesg")
        argv = [program] if program is not None else []
    if not argv:
        unknown.add("kernel log", "neither journalctl nor dmesg is in PATH")
        return None
    try:
        code, text = run(argv, LOG_DEADLINE)
    except (OSError, TimeoutError) as error:
        unknown.add("kernel log", said(error))
        return None
    if code or not text.strip():
        unknown.add("kernel log", (text.strip() or "it shows nothing to this user")[:200])
        return None
    found = {}  # type: Dict[object, Facts]
    for line in text.splitlines():
        match = XID.search(line)
        if match:
            key = (match.group(1), match.group(2))
            bus = match.group(1)
            found[key] = {"pci_bus_id": bus, "code": int(match.group(2)), "line": line[:200]}
    return list(found.values())
