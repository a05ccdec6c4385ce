"""The operating system: its name, kernel and C library."""

import os
import platform
import re
import socket
from typing import Optional

from kimideploy.facts.probe.base import Facts, Unknown, read_or, under


def about_system(root: str, unknown: Unknown) -> Facts:
    facts = {
        "hostname": socket.gethostname() or None,
        "system": platform.system() or None,
        "kernel": platform.release() or None,
        "python": platform.python_version(),
        "distribution": None,
        "glibc": None,
    }  # type: Facts
    if facts["system"] == "Linux":
        facts["distribution"] = distribution(root, unknown)
        facts["glibc"] = glibc(unknown)
    elif facts["system"] == "Darwin":
        facts["distribution"] = "macOS " + platform.mac_ver()[0]
    elif facts["system"] == "Windows":
        facts["distribution"] = "Windows " + platform.win32_ver()[1]
    return facts


def distribution(root: str, unknown: Unknown) -> Optional[str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        found = re.search(r'^PRETTY_NAME="?(.*?)"?\s*$', read_or(under(root, path)), re.MULTILINE)
        if found:
            return found.group(1)
    unknown.add("distribution", "there is no os-release file")
    return None


def glibc(unknown: Unknown) -> Optional[str]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        name, version = "", ""
    if name == "glibc" and version:
        return version
    unknown.add("glibc", "this is not a glibc system")
    return None
