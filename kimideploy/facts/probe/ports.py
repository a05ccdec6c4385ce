"""The TCP ports something listens on."""

import os
import socket
import sys
from typing import FrozenSet, Set, Tuple

from kimideploy.facts.probe.base import Facts, Unknown, needs_linux, read, read_or, under

LISTENS = "0A"


def about_ports(root: str, unknown: Unknown) -> Facts:
    found = set()  # type: Set[Tuple[int, str]]
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = "/proc/net/" + name
        try:
            lines = read(under(root, path)).splitlines()[1:]
        except FileNotFoundError:
            reason = "IPv6 is off" if name == "tcp6" and found else needs_linux(path)
            unknown.add("listening ports (%s)" % name, reason)
            continue
        for line in lines:
            words = line.split()
            if len(words) > 3 and words[3] == LISTENS:
                address, _, port = words[1].partition(":")
                found.add((int(port, 16), readable(address, family)))
    return {"ports": [{"port": port, "address": address} for port, address in sorted(found)]}


def readable(address: str, family: int) -> str:
    """Return the address that the kernel prints as words of 32 bits in its own byte order."""
    words = [address[at : at + 8] for at in range(0, len(address), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)  # type: ignore[arg-type,unused-ignore]
    return socket.inet_ntop(family, packed)


def holders(port: int) -> FrozenSet[int]:
    """Return the pids of what listens on *port*; none where that can't be told."""
    sockets = sockets_on(port)
    if not sockets:
        return frozenset()
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return frozenset(pid for pid in pids if held_by(pid) & sockets)


def held_by(pid: int) -> Set[str]:
    """Return what the open files of a process lead to, nothing where we may not look."""
    held = set()  # type: Set[str]
    folder = "/proc/%d/fd" % pid
    try:
        names = os.listdir(folder)
    except OSError:
        return held
    for name in names:
        try:
            held.add(os.readlink(folder + "/" + name))
        except OSError:
            continue  # closed in the meantime
    return held


def sockets_on(port: int) -> Set[str]:
    """Return the names that /proc/PID/fd gives to sockets listening on *port*."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in read_or(table).splitlines()[1:]:
            words = row.split()
            if words[3] == LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                found.add("socket:[%s]" % words[9])
    return found


def program(pid: int) -> str:
    """The program's short name and pid; its arguments may hold what is nobody's business."""
    text = read_or("/proc/%d/comm" % pid).strip() or "a program"
    return "%s (pid %d)" % ("".join(sign if sign.isprintable() else "?" for sign in text), pid)
