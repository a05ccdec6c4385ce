"""The network: interfaces, RDMA devices, and whether the clock is kept."""

import ctypes
import glob
import os
import socket
import struct
import time
from typing import Dict, List, Optional

from kimideploy.facts.probe.base import Facts, Unknown, needs_linux, number, read_or, said, under

#: linux/sockios.h
SIOCGIFADDR = 0x8915
#: microseconds beyond which systemd, too, calls a clock unsynchronized (systemd's ntp_synced)
MOST_ERROR = 16000000


def about_network(root: str, unknown: Unknown) -> Facts:
    facts = {"clock": {"at": round(time.time(), 3), "synchronized": synchronized(unknown)}}  # type: Facts
    folder = under(root, "/sys/class/net")
    if not os.path.isdir(folder):
        unknown.add("interfaces", needs_linux("/sys/class/net"))
        return facts
    six = addresses_of_six(root)
    facts["interfaces"] = [
        interface(os.path.join(folder, name), name, six) for name in sorted(os.listdir(folder))
    ]
    facts["rdma"] = rdma(root)
    return facts


def interface(path: str, name: str, six: Dict[str, List[str]]) -> Facts:
    speed = number(read_or(path + "/speed"))
    return {
        "name": name,
        "up": read_or(path + "/operstate").strip() in ("up", "unknown"),
        "mtu": number(read_or(path + "/mtu")),
        "megabits": speed if speed is not None and speed > 0 else None,
        "virtual": "/devices/virtual/" in os.path.realpath(path),
        "addresses": address_of_four(name) + six.get(name, []),
    }


def address_of_four(name: str) -> List[str]:
    """Return the first IPv4 address of an interface, none where it has none."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            request = struct.pack("256s", name.encode()[:15])
            answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, request)
    except (ImportError, OSError):
        return []
    return [socket.inet_ntoa(answer[20:24])]


def addresses_of_six(root: str) -> Dict[str, List[str]]:
    found = {}  # type: Dict[str, List[str]]
    for line in read_or(under(root, "/proc/net/if_inet6")).splitlines():
        words = line.split()
        if len(words) == 6:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))
            found.setdefault(words[5], []).append(address)
    return found


def rdma(root: str) -> List[Facts]:
    """Return the ports of InfiniBand and RoCE devices."""
    found = []
    for path in sorted(glob.glob(under(root, "/sys/class/infiniband/*/ports/*"))):
        rate = read_or(path + "/rate").split()
        found.append(
            {
                "device": path.split("/")[-3],
                "state": read_or(path + "/state").strip().partition(": ")[2] or None,
                "link": read_or(path + "/link_layer").strip() or None,
                "gigabits": number(rate[0]) if rate else None,
            }
        )
    return found


def synchronized(unknown: Unknown) -> Optional[bool]:
    """Return whether something keeps the clock, by the error that the kernel believes it has."""
    try:
        state = ctypes.create_string_buffer(512)  # struct timex, with room to spare
        if ctypes.CDLL(None, use_errno=True).adjtimex(state) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (AttributeError, OSError, TypeError) as error:
        unknown.add("clock", said(error))
        return None
    if struct.calcsize("P") != 8:
        unknown.add("clock", "only told on 64 bits")
        return None
    # modes and padding, offset, freq, maxerror
    return bool(struct.unpack_from("q", state.raw, 24)[0] < MOST_ERROR)
