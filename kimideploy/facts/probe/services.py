"""The services around the GPUs, the engine's own unit, and the container runtimes."""

import os
import re
from typing import Any, List, Optional

from kimideploy.facts.probe.base import Facts, Unknown, find_program, read_or, run, said, under

#: seconds for one program
PATIENCE = 3.0
SERVICES = ("nvidia-persistenced.service", "nvidia-fabricmanager.service")
UNIT = "kimideploy.service"
#: property of systemd: field of ours
UNIT_LIMITS = {"LimitMEMLOCK": "memlock", "LimitNOFILE": "nofile", "TasksMax": "tasks"}
UNLIMITED = ("infinity", str((1 << 64) - 1))


def about_services(root: str, unknown: Unknown) -> Facts:
    facts = {"services": None}  # type: Facts
    if os.path.isdir(under(root, "/run/systemd/system")):
        shown = properties(unknown)
        if shown is not None:
            facts["services"] = [
                {"name": one["Id"], "state": one.get("ActiveState")}
                for one in shown
                if one.get("LoadState") == "loaded" and one.get("Id") in SERVICES
            ]
            ours = [one for one in shown if one.get("Id") == UNIT]
            for one in ours:
                if one.get("LoadState") == "loaded":
                    facts["unit"] = {field: limit(one.get(n)) for n, field in UNIT_LIMITS.items()}
                    facts["unit"]["pids"] = pids_of(root, one.get("ControlGroup", ""))
    else:
        unknown.add("services", "systemd does not run this machine")
    facts["fabric_manager"] = fabric_manager(unknown)
    facts["containers"] = containers(root)
    return facts


def properties(unknown: Unknown) -> Any:
    program = find_program("systemctl")
    if program is None:
        unknown.add("services", "systemctl is not in PATH")
        return None
    wanted = ",".join(["Id", "LoadState", "ActiveState", "ControlGroup", *UNIT_LIMITS])
    try:
        code, text = run([program, "show", "-p", wanted, *SERVICES, UNIT], PATIENCE)
        # Why too: who is not root may have an engine of their own; the services are root's.
        if os.geteuid() != 0:
            failed, own = run([program, "--user", "show", "-p", wanted, UNIT], PATIENCE)
            text = text if failed else text.strip() + "\n\n" + own
    except (OSError, TimeoutError) as error:
        unknown.add("services", said(error))
        return None
    if code:
        unknown.add("services", text.strip()[:200])
        return None
    blocks = re.split(r"\n\s*\n", text.strip())
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks
    ]


def pids_of(root: str, group: str) -> List[int]:
    """Return the processes of a control group, by what each says of itself."""
    found = []  # type: List[int]
    if not group:
        return found
    for name in os.listdir(under(root, "/proc")):
        if name.isdecimal():
            lines = read_or(under(root, "/proc/%s/cgroup" % name)).splitlines()
            if any(line.partition(":")[2].partition(":")[2].startswith(group) for line in lines):
                found.append(int(name))
    return found


def limit(text: Optional[str]) -> Any:
    if text in UNLIMITED:
        return "unlimited"
    return int(text) if text is not None and text.isdigit() else None


def fabric_manager(unknown: Unknown) -> Optional[str]:
    """Return the version of NVIDIA's fabric manager, None where it is not installed."""
    program = find_program("nv-fabricmanager")
    if program is None:
        return None
    try:
        text = run([program, "--version"], PATIENCE)[1]
    except (OSError, TimeoutError) as error:
        unknown.add("version of the fabric manager", said(error))
        return None
    found = re.search(r"([0-9]+\.[0-9]+(?:\.[0-9]+)?)", text)
    if found is None:
        unknown.add("version of the fabric manager", "`nv-fabricmanager --version` prints none")
        return None
    return found.group(1)


def containers(root: str) -> Facts:
    """Return what could run an engine in a container here, by its files; nothing is started."""
    runtimes = [name for name in ("docker", "podman") if find_program(name) is not None]
    places = ("/etc/cdi", "/var/run/cdi", "/run/cdi")
    specifications = []  # type: List[str]
    for place in places:
        try:
            specifications += os.listdir(under(root, place))
        except OSError:
            continue
    return {
        "runtimes": runtimes,
        "toolkit": find_program("nvidia-ctk") is not None,
        "cdi": any(name.startswith("nvidia") for name in specifications),
        "docker_runtime": '"nvidia"'
        in read_or(under(root, "/etc/docker/daemon.json"))
        + read_or(os.path.expanduser("~/.config/docker/daemon.json")),
        "inside": inside(root),
    }


def inside(root: str) -> Optional[str]:
    """Return what container this is, None for none that can be told."""
    if os.path.exists(under(root, "/.dockerenv")):
        return "docker"
    if os.path.exists(under(root, "/run/.containerenv")):
        return "podman"
    return read_or(under(root, "/run/systemd/container")).strip() or None
