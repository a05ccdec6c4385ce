"""The processors."""

import glob
import os
import platform
from typing import Dict, Optional, Tuple

from kimideploy.facts.probe.base import Facts, Unknown, needs_linux, read, read_or, under

#: what engines and their CPU kernels ask for, x86 and ARM, as /proc/cpuinfo spells them
CPU_FLAGS = (
    "sse4_2",
    "f16c",
    "fma",
    "avx",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512vbmi",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)


def about_cpu(root: str, unknown: Unknown) -> Facts:
    cpu = {"architecture": platform.machine() or None, "threads": os.cpu_count()}  # type: Facts
    if not os.path.exists(under(root, "/proc/cpuinfo")):
        unknown.add("cpu model, cores, sockets, NUMA nodes and flags", needs_linux("/proc/cpuinfo"))
        return {"cpu": cpu}
    info = read(under(root, "/proc/cpuinfo"))
    fields = [
        (key.strip(), value.strip())
        for key, colon, value in (line.partition(":") for line in info.splitlines())
        if colon
    ]
    first = dict(reversed(fields))
    threads = sum(key == "processor" for key, _ in fields)
    cpu["threads"] = threads or cpu["threads"]
    cpu["model"] = first.get("model name") or arm_model(first)
    if cpu["model"] is None:
        unknown.add("cpu model", "/proc/cpuinfo names none")
    flags = first.get("flags") or first.get("Features")
    if flags is None:
        unknown.add("cpu flags", "/proc/cpuinfo names none")
    else:
        present = set(flags.split())
        cpu["flags"] = [flag for flag in CPU_FLAGS if flag in present]
    cpu["sockets"], cpu["cores"] = sockets_and_cores(root)
    if cpu["cores"] is None:
        unknown.add("cpu sockets and cores", "the kernel offers no topology")
    cpu["numa_nodes"] = numa_nodes(root)
    if cpu["numa_nodes"] is None:
        unknown.add("NUMA nodes", "the kernel offers no /sys/devices/system/node")
    return {"cpu": cpu}


def arm_model(fields: Dict[str, str]) -> Optional[str]:
    # Why no name: ARM kernels print numbers; the tables that name them belong to lscpu.
    if "CPU part" not in fields:
        return None
    return "ARM implementer %s part %s" % (fields.get("CPU implementer"), fields["CPU part"])


def sockets_and_cores(root: str) -> Tuple[Optional[int], Optional[int]]:
    """Return the sockets and the physical cores over all of them."""
    packages, cores = set(), set()
    for folder in glob.glob(under(root, "/sys/devices/system/cpu/cpu[0-9]*/topology")):
        siblings = read_or(folder + "/core_cpus_list") or read_or(folder + "/thread_siblings_list")
        package = read_or(folder + "/physical_package_id").strip()
        if siblings and package:
            packages.add(package)
            cores.add(siblings.strip())
    return (len(packages), len(cores)) if cores else (None, None)


def numa_nodes(root: str) -> Optional[int]:
    """Return how many NUMA nodes have processors; GPU and CXL memory are nodes without."""
    nodes = glob.glob(under(root, "/sys/devices/system/node/node[0-9]*"))
    return sum(bool(read_or(node + "/cpulist").strip()) for node in nodes) or None
