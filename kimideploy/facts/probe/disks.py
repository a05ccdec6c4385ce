"""The mounted file systems and their room."""

import functools
import os
import shutil
import time
from typing import Dict, Tuple

from kimideploy.facts.probe.base import (
    Facts,
    Unknown,
    needs_linux,
    read_or,
    start,
    under,
    unescape,
)

#: seconds for one mount: a dead NFS server never answers
MOUNT_DEADLINE = 5.0
#: file systems that hold no files of anybody's own, and autofs, which mounts when looked at
NO_STORAGE = set(
    "autofs bdev binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs "
    "efivarfs fuse.gvfsd-fuse fuse.lxcfs fuse.portal fusectl hugetlbfs iso9660 mqueue nsfs "
    "overlay.lower pipefs proc pstore ramfs rpc_pipefs securityfs selinuxfs sockfs squashfs "
    "sysfs tmpfs tracefs".split()
)


def about_disks(root: str, unknown: Unknown) -> Facts:
    text = read_or(under(root, "/proc/self/mounts"))
    if not text:
        usage = shutil.disk_usage(os.path.abspath(os.sep))
        unknown.add("other disks and file-system types", needs_linux("/proc/self/mounts"))
        here = {"mount": os.path.abspath(os.sep), "total": usage.total, "free": usage.free}
        return {"disks": [here]}
    mounts = {}  # type: Dict[Tuple[str, str], Facts]
    for line in text.splitlines():
        device, mount, kind, options = (line.split(" ") + [""] * 4)[:4]
        mount = unescape(mount)
        overlay = kind == "overlay" and mount != "/"  # another container's own root
        if kind in NO_STORAGE or overlay:
            continue
        disk = {"mount": mount, "filesystem": kind, "device": unescape(device)}
        disk["options"] = options
        # Why: one device is mounted at many places (bind mounts); the shortest path names it.
        known = mounts.setdefault((disk["device"], kind), disk)
        if len(mount) < len(known["mount"]):
            mounts[disk["device"], kind] = disk
    asked = [(disk, *start(functools.partial(space_of, root, disk))) for disk in mounts.values()]
    end = time.monotonic() + MOUNT_DEADLINE
    disks = []
    for disk, thread, outcome in asked:
        thread.join(max(0.0, end - time.monotonic()))
        space = outcome.get("facts")
        if space is None:
            reason = outcome.get("error", "no answer within %g s" % MOUNT_DEADLINE)
            unknown.add("disk " + disk["mount"], reason)
        elif space:
            disks.append(space)
    return {"disks": sorted(disks, key=lambda disk: str(disk["mount"]))}


def space_of(root: str, disk: Facts, _: Unknown) -> Facts:
    """Return the disk with its space; nothing for a file's bind mount or an empty system."""
    path = under(root, disk["mount"])
    if not os.path.isdir(path):
        return {}
    space = os.statvfs(path)
    if not space.f_blocks:
        return {}
    fields = {key: disk[key] for key in ("mount", "filesystem", "device")}
    # Why: on a read-only mount nothing can be put, whatever its file system has left.
    free = 0 if "ro" in disk["options"].split(",") else space.f_bavail * space.f_frsize
    return dict(fields, total=space.f_blocks * space.f_frsize, free=free)
