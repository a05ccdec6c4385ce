"""Each directive that hardens the unit, one by one: what it forbids is possible without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kimideploy.engines import complete
from kimideploy.render.files import Supervised, unit
from tests.hosts.rig import Rig
from tests.unit.engines.plans import CATALOG, plan

LIBC = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def told(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
#: a machine that listens, and one of the host's own devices that no engine needs
LISTENER, DEVICE = 22222, "/dev/kd-kmsg"


@dataclass(frozen=True, slots=True)
class Probe:
    """A Python program that ends with 0 where it could do what the directive forbids."""

    directive: str
    program: str
    user: str | None = None


PROBES = (
    Probe(
        "NoNewPrivileges",
        "import subprocess\n"
        "assert b'0' == subprocess.run(['/opt/kd-suid', '-u'], capture_output=True).stdout.strip()",
        user="ops",
    ),
    Probe("CapabilityBoundingSet", "import os; os.chown('/srv/kd-mine', 1, 1)"),
    Probe("ProtectSystem", "open('/usr/kd-written', 'w')"),
    Probe("ProtectHome", "import os; assert os.listdir('/root')"),
    Probe("PrivateTmp", "open('/tmp/kd-planted')"),
    Probe("ProtectKernelTunables", "open('/proc/sys/kernel/domainname', 'r+')"),
    Probe(
        "ProtectKernelModules",
        # Why not only success: a kernel without modules says something else than "forbidden".
        LIBC + "libc.syscall(175, 0, 0, b''); assert errno.EPERM != ctypes.get_errno()",
    ),
    Probe("ProtectKernelLogs", LIBC + "told(libc.klogctl(3, ctypes.create_string_buffer(64), 64))"),
    Probe("ProtectControlGroups", "open('/sys/fs/cgroup/cgroup.procs', 'r+')"),
    Probe("ProtectClock", LIBC + "told(libc.adjtimex(ctypes.create_string_buffer(256)))"),
    Probe("ProtectHostname", "import socket; socket.sethostname(socket.gethostname())"),
    Probe("ProtectProc", "open('/proc/1/stat')", user="ops"),
    Probe("RestrictAddressFamilies", "import socket; socket.socket(socket.AF_PACKET, 3)"),
    Probe("RestrictNamespaces", LIBC + "told(libc.unshare(0x04000000))"),
    Probe("RestrictSUIDSGID", "import os; os.chmod('/srv/kd-mine', 0o4755)"),
    Probe("RestrictRealtime", "import os; os.sched_setscheduler(0, 2, os.sched_param(1))"),
    Probe("LockPersonality", LIBC + "told(libc.personality(0x40000))"),
    Probe(
        "SystemCallArchitectures",
        # getpid by the 32-bit way in
        "import ctypes, mmap\n"
        "code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0",
    ),
    Probe("SystemCallFilter", LIBC + "told(libc.ptrace(0, 0, 0, 0))"),
    Probe(
        "IPAddressDeny",
        f"import socket; socket.create_connection(('10.177.77.1', {LISTENER}), timeout=2)",
    ),
    Probe("DevicePolicy", f"open('{DEVICE}', 'rb')"),
    Probe(
        "UMask",
        "import os; open('/srv/kd-new', 'w'); mode = os.stat('/srv/kd-new').st_mode\n"
        "os.unlink('/srv/kd-new'); assert mode & 0o077",
    ),
)
#: what belongs to a directive of another name, or takes nothing by itself
PARTS = {
    "IPAddressAllow": "the exception of IPAddressDeny",
    "DeviceAllow": "the exception of DevicePolicy",
    "AmbientCapabilities": "empty as it is without it; CapabilityBoundingSet takes them away",
    "RemoveIPC": "asked for by a test of its own",
}
#: how the names of what hardens begin
HARDENING = (
    "NoNew", "Capability", "Ambient", "Protect", "Private", "Restrict", "Lock", "RemoveIPC",
    "SystemCall", "IPAddress", "Device", "UMask",
)  # fmt: skip
#: what an engine does and must be able to do in the whole of it
NEEDED = {
    "code made at run time": "import mmap; mmap.mmap(-1, 4096, prot=7)",
    "netlink, for NCCL": "import socket; socket.socket(socket.AF_NETLINK, 3).bind((0, 0))",
    "memory and CPUs are counted": "open('/proc/meminfo').read(); open('/proc/cpuinfo').read()",
    "shared memory": "from multiprocessing import shared_memory as s\n"
    "one = s.SharedMemory(create=True, size=64); one.close(); one.unlink()",
    "loopback": "import socket\n"
    "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname())",
    "file handles of a worker, for CUDA's shared memory": LIBC
    + "pid = libc.syscall(434, os.getpid(), 0); told(pid)\n"
    "told(libc.syscall(438, pid, 0, 0))",
    "threads where it wants them": "import os; os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "its cache": "import os; open(os.environ['XDG_CACHE_HOME'] + '/kd', 'w')",
}


def _directives() -> dict[str, list[str]]:
    """Return name → values of the [Service] section of a unit for eight H200."""
    how = Supervised(words=("/bin/true",), venv=None, settings="/none", quiet=60)
    asked = complete(plan(model_path="/srv/models/kimi"), CATALOG)
    section = unit(asked, 0, how, CATALOG).partition("[Service]\n")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


DIRECTIVES = _directives()


@pytest.fixture(scope="module")
def furnished(rig: Rig) -> Iterator[Rig]:
    """Host 2 with what the probes try to get at."""
    rig.sh(
        2,
        "cp /usr/bin/id /opt/kd-suid; chmod 4755 /opt/kd-suid; touch /tmp/kd-planted /srv/kd-mine;"
        f" mknod -m 666 {DEVICE} c 1 11; id kimideploy || useradd --system kimideploy",
    )
    listens = f"import socket; s = socket.create_server(('10.177.77.1', {LISTENER}))"
    with subprocess.Popen(
        [sys.executable, "-c", f"{listens}\nprint(flush=True)\nwhile True: s.accept()"],
        stdout=subprocess.PIPE,
    ) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        yield rig
        listener.kill()
    rig.sh(2, f"rm /opt/kd-suid /tmp/kd-planted /srv/kd-mine {DEVICE}")


def _can(rig: Rig, program: str, lines: list[str], user: str | None = None) -> bool:
    """Return whether *program* ends with 0 under these lines of a unit."""
    script = "/srv/kd-probe.py"
    rig._write(2, script, program)
    rig.sh(2, f"chmod 644 {script}")
    words = [f"-p '{line}'" for line in [*lines, *([f"User={user}"] if user else [])]]
    run = f"systemd-run --quiet --wait --collect {' '.join(words)} /usr/bin/python3 {script}"
    ended = rig.sh(2, f"{run}; echo ended $?", check=False)
    return "ended 0" in ended


def _lines(*names: str) -> list[str]:
    return [f"{name}={value}" for name in names for value in DIRECTIVES[name]]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.directive)
def test_what_it_forbids(furnished: Rig, probe: Probe) -> None:
    """What the directive of our unit forbids can be done without it and not with it."""
    names = [probe.directive, *(["IPAddressAllow"] if "IPAddress" in probe.directive else [])]

    assert _can(furnished, probe.program, [], probe.user)
    assert not _can(furnished, probe.program, _lines(*names), probe.user)


def test_shared_memory_is_taken_away(furnished: Rig) -> None:
    """What a dead engine left in shared memory is gone with its unit."""
    program = "open('/dev/shm/kd-left', 'w')"

    assert _can(furnished, program, [], "ops")
    assert "kd-left" in furnished.sh(2, "ls /dev/shm")
    assert _can(furnished, program, _lines("RemoveIPC"), "ops")
    assert "kd-left" not in furnished.sh(2, "ls /dev/shm")


def test_every_directive_is_tried() -> None:
    """A directive that hardens and has no probe is a hole in this file."""
    hardening = {name for name in DIRECTIVES if name.startswith(HARDENING)}

    assert hardening == {probe.directive for probe in PROBES} | set(PARTS)


@pytest.mark.parametrize("need", NEEDED)
def test_what_an_engine_needs(furnished: Rig, need: str) -> None:
    """All directives together leave an engine what it needs."""
    names = [name for name in DIRECTIVES if name.startswith((*HARDENING, "Cache", "Environment"))]
    lines = [line for line in _lines(*names) if not line.startswith("EnvironmentFile")]
    # Why: systemd-run does not put in what a unit's file may say for it.
    lines = [line.replace("%C", "/var/cache") for line in lines]

    assert _can(furnished, NEEDED[need], lines, "kimideploy")


def test_a_device_is_let_in_by_name(furnished: Rig) -> None:
    """DeviceAllow= gives a device back, and names that this driver lacks do no harm."""
    lines = _lines("DevicePolicy", "DeviceAllow")

    assert _can(furnished, f"open('{DEVICE}', 'rb')", [*lines, f"DeviceAllow={DEVICE} r"])
