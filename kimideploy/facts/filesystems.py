"""What a file system is for someone who reads 595 GB from it."""

from __future__ import annotations

from typing import Literal

Kind = Literal["local", "network", "memory", "overlay"]

#: statements of mount(8) and of the file systems' own documentation
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"}
    | {"ocfs2", "orangefs", "smb3", "smbfs", "virtiofs", "wekafs"}
)
_MEMORY = frozenset({"ramfs", "tmpfs", "zram"})


def kind_of(name: str | None) -> Kind:
    """Return the kind of a file system by the name that mount(8) shows."""
    word = (name or "").removeprefix("fuse.")
    if word in _NETWORK or (name or "").startswith("fuse."):
        return "network"
    if word in _MEMORY:
        return "memory"
    return "overlay" if word in ("overlay", "aufs") else "local"
