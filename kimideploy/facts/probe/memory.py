"""Host memory, its limits and /dev/shm."""

import os
import re
from typing import Iterable, List, Optional

from kimideploy.facts.probe.base import (
    Facts,
    Unknown,
    needs_linux,
    number,
    read_or,
    under,
    unescape,
)


def about_memory(root: str, unknown: Unknown) -> Facts:
    memory = {}  # type: Facts
    text = read_or(under(root, "/proc/meminfo"))
    if text:
        kib = dict(re.findall(r"^(\w+):\s+([0-9]+) kB", text, re.MULTILINE))
        names = {"total": "MemTotal", "available": "MemAvailable", "swap": "SwapTotal"}
        for field, name in names.items():
            if name in kib:
                memory[field] = int(kib[name]) * 1024
            else:
                unknown.add("memory " + field, "/proc/meminfo has no %s" % name)
        memory["limit"] = cgroup_limit(root)
        memory["arc"] = arc(root)
    else:
        unknown.add("available memory, swap and limits", needs_linux("/proc/meminfo"))
        try:
            memory["total"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            unknown.add("memory total", "this system has no sysconf for it")
    if os.path.isdir(under(root, "/dev/shm")):
        space = os.statvfs(under(root, "/dev/shm"))
        memory["shm_total"] = space.f_blocks * space.f_frsize
        memory["shm_free"] = space.f_bavail * space.f_frsize
    else:
        unknown.add("/dev/shm", "it does not exist")
    return {"memory": memory}


def arc(root: str) -> Optional[int]:
    """Return the bytes that ZFS's cache would give back, None where there is no ZFS."""
    text = read_or(under(root, "/proc/spl/kstat/zfs/arcstats"))
    found = dict(re.findall(r"^(size|c_min)\s+\d+\s+(\d+)\s*$", text, re.MULTILINE))
    return max(0, int(found["size"]) - int(found["c_min"])) if len(found) == 2 else None


def cgroup_limit(root: str) -> Optional[int]:
    """Return the smallest memory limit of the cgroups above this process, v2 and v1."""
    limits = []  # type: List[Optional[int]]
    for line in read_or(under(root, "/proc/self/cgroup")).splitlines():
        hierarchy, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if hierarchy == "0" and not controllers:
            limits += limits_above(root, path, "cgroup2", "", "memory.max")
        elif "memory" in controllers.split(","):
            limits += limits_above(root, path, "cgroup", "memory", "memory.limit_in_bytes")
    # Why: version 1 writes "no limit" as the largest page-aligned number.
    real = [limit for limit in limits if limit is not None and limit < 1 << 60]
    return min(real) if real else None


def limits_above(
    root: str, path: str, kind: str, option: str, name: str
) -> Iterable[Optional[int]]:
    for line in read_or(under(root, "/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        mount, kinds = before.split(), after.split()
        if len(mount) < 5 or len(kinds) < 3 or kinds[0] != kind:
            continue
        if option and option not in kinds[2].split(","):
            continue
        # Why: in a container the mount may begin below the hierarchy's top.
        top, here = mount[3].rstrip("/"), path
        if top and (here + "/").startswith(top + "/"):
            here = here[len(top) :]
        parts = [part for part in here.split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):
            folder = "/".join([unescape(mount[4]).rstrip("/")] + parts[:depth])
            yield number(read_or(under(root, folder + "/" + name)))
