"""What the kernel is set to, limits, network and services: trees of files, and this machine."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from kimideploy.facts.probe import probe
from kimideploy.facts.probe.base import Unknown
from kimideploy.facts.probe.kernel import about_kernel, redirects, xids
from kimideploy.facts.probe.limits import about_limits
from kimideploy.facts.probe.network import about_network
from kimideploy.facts.probe.reach import over_http, over_tcp, skew
from kimideploy.facts.probe.services import about_services
from tests.unit.facts.test_host import tree

GPU = "/sys/bus/pci/devices/0000:10:00.0"
BRIDGE = "/sys/bus/pci/devices/0000:00:01.0"


def _kernel(root: Path) -> tuple[dict[str, object], dict[str, str]]:
    unknown = Unknown()
    found = about_kernel(str(root), unknown)
    return found.get("settings", {}), {gap["what"]: gap["reason"] for gap in unknown.entries}


def _space(control: int) -> bytes:
    """Configuration space of a bridge with access control set to *control*."""
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x140 << 20)
    struct.pack_into("<I", space, 0x140, 0x000D | 1 << 16)
    struct.pack_into("<H", space, 0x146, control)
    return bytes(space)


def test_settings_of_the_kernel(tmp_path: Path) -> None:
    """Balancing, huge pages, governors, modules and the IOMMU, where the kernel has them."""
    root = tree(
        tmp_path,
        {
            "/proc/sys/kernel/numa_balancing": "1\n",
            "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
            "/proc/meminfo": "HugePages_Total:    1024\nHugepagesize:       2048 kB\n",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
            "/sys/module/nvidia/version": "580\n",
            f"{GPU}/class": "0x030200\n",
            f"{GPU}/vendor": "0x10de\n",
            "/sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
            "/sys/bus/pci/devices/0000:02:00.0/vendor": "0x1a03\n",
            "/sys/bus/pci/devices/0000:02:00.0/iommu_group/type": "identity\n",
            f"{GPU}/iommu_group/type": "DMA-FQ\n",
        },
    )

    settings, unknown = _kernel(root)

    assert settings["numa_balancing"] is True
    assert "madvise" == settings["transparent_hugepages"]
    assert 2 << 30 == settings["hugepages_reserved"]
    assert ["performance", "powersave"] == settings["governors"]
    assert ["nvidia"] == settings["modules"]
    assert ["DMA-FQ"] == settings["iommu"]
    assert "NUMA balancing" not in unknown


@pytest.mark.parametrize(("control", "expected"), [(0, 0), (0x1D, 1), (0x04, 1), (0x01, 0)])
def test_access_control_of_bridges(tmp_path: Path, control: int, expected: int) -> None:
    """Only what redirects counts: requests or answers."""
    root = tree(tmp_path, {"/proc/sys/kernel/x": "", f"{BRIDGE}/class": "0x060400\n"})
    (root / BRIDGE.lstrip("/") / "config").write_bytes(_space(control))

    assert expected == _kernel(root)[0]["acs_redirects"]


def test_access_control_is_roots_alone(tmp_path: Path) -> None:
    """The 64 bytes that others see say nothing, and that is said."""
    root = tree(tmp_path, {"/proc/sys/kernel/x": "", f"{BRIDGE}/class": "0x060400\n"})
    (root / BRIDGE.lstrip("/") / "config").write_bytes(bytes(64))

    settings, unknown = _kernel(root)

    assert settings["acs_redirects"] is None
    assert "root alone" in unknown["PCIe access control"]


@pytest.mark.parametrize("space", [b"", bytes(257), b"\xff" * 4096, bytes(4096)])
def test_any_configuration_space_is_read(space: bytes) -> None:
    """Nonsense and circles end."""
    assert redirects(space) in (True, False)


def _journal(folder: Path, script: str) -> str:
    path = folder / "journalctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(folder)


def test_gpu_errors_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of each kind and GPU is told."""
    said = ("boot", "Xid (PCI:0000:10:00): 79, a", "Xid (PCI:0000:10:00): 79, b",
            "Xid (PCI:0000:20:00): 48, c")  # fmt: skip
    script = "\n".join(f"echo 'NVRM: {line}'" for line in said)
    monkeypatch.setenv("PATH", f"{_journal(tmp_path, script)}:{os.environ['PATH']}")

    found = xids(Unknown())

    assert [(79, True), (48, True)] == [(x["code"], "Xid" in x["line"]) for x in found or []]
    assert "79, b" in (found or [])[0]["line"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [("sleep 60", "did not answer"), ("exit 1", "nothing to this user"), ("echo no; exit 3", "no")],
)
def test_a_log_that_is_closed_or_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """It is unknown with the reason, within the deadline."""
    monkeypatch.setattr("kimideploy.facts.probe.kernel.LOG_DEADLINE", 0.5)
    monkeypatch.setenv("PATH", f"{_journal(tmp_path, script)}:{os.environ['PATH']}")
    unknown = Unknown()

    assert None is xids(unknown)
    assert reason in unknown.entries[0]["reason"]


def test_limits_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks by the cgroup, memory and files by the process; no variable that may hold a secret."""
    root = tree(
        tmp_path,
        {
            "/proc/self/cgroup": "0::/a.slice\n",
            "/proc/self/mountinfo": "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "/sys/fs/cgroup/a.slice/pids.max": "512\n",
            "/proc/sys/kernel/pid_max": "4194304\n",
        },
    )
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:sesame@mirror.example")

    facts = about_limits(str(root), Unknown())

    assert 512 == facts["limits"]["tasks"]
    assert {"memlock", "nofile", "tasks"} == set(facts["limits"])
    assert ["NCCL_SOCKET_IFNAME", "eth0"] in facts["environment"]
    assert "sesame" not in str(facts)


def test_interfaces_and_rdma(tmp_path: Path) -> None:
    """MTU, speed and state of each interface, rate and state of each RDMA port."""
    root = tree(
        tmp_path,
        {
            "/sys/class/net/zz9/operstate": "up\n",
            "/sys/class/net/zz9/mtu": "9000\n",
            "/sys/class/net/zz9/speed": "200000\n",
            "/proc/net/if_inet6": "fd000000000000000000000000000002 02 40 00 80 zz9\n",
            "/sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
            "/sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
            "/sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
        },
    )

    facts = about_network(str(root), Unknown())

    (interface,) = facts["interfaces"]
    assert ("zz9", True, 9000, 200_000, ["fd00::2"]) == tuple(
        interface[name] for name in ("name", "up", "mtu", "megabits", "addresses")
    )
    assert [{"device": "mlx5_0", "state": "ACTIVE", "link": "InfiniBand", "gigabits": 400}] == (
        facts["rdma"]
    )


def test_services_by_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed ones are told with their state; the unit's limits as systemd has them."""
    root = tree(tmp_path, {"/run/systemd/system/x": "", "/proc/7/cgroup": "0::/k.service/sub\n"})
    blocks = [
        "Id=nvidia-persistenced.service\\nLoadState=loaded\\nActiveState=inactive",
        "Id=nvidia-fabricmanager.service\\nLoadState=not-found\\nActiveState=inactive",
        (
            "Id=kimideploy.service\\nLoadState=loaded\\nActiveState=active\\nLimitMEMLOCK=infinity"
            "\\nLimitNOFILE=1024\\nTasksMax=18446744073709551615\\nControlGroup=/k.service"
        ),
    ]
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '" + "\\n\\n".join(blocks) + "\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    facts = about_services(str(root), Unknown())

    assert [{"name": "nvidia-persistenced.service", "state": "inactive"}] == facts["services"]
    assert {"memlock": "unlimited", "nofile": 1024, "tasks": "unlimited", "pids": [7]} == (
        facts["unit"]
    )


def test_a_fabric_manager_says_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it prints it, blank lines and all."""
    program = tmp_path / "nv-fabricmanager"
    program.write_text("#!/bin/sh\nprintf '\\n\\tFabric Manager version is : 580.159.03\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert "580.159.03" == about_services(str(tmp_path), Unknown())["fabric_manager"]


def test_what_is_reached() -> None:
    """A refusal is an open way; a name that is none is said."""
    assert "refused" == over_tcp("127.0.0.1:9")["state"]
    assert "no" == over_http("http://no-such-host.invalid")["state"]


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 99 Foo 2026 00:00:00 GMT"])
def test_a_date_that_is_none(date: str | None) -> None:
    """Any header may come."""
    assert None is skew(date, 0.0)


def test_a_clock_that_is_ahead() -> None:
    """Seconds by which this clock is ahead of theirs."""
    assert 60.0 == skew("Thu, 01 Jan 1970 00:01:00 GMT", 120.0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_this_machine_tells_it() -> None:
    """Every source gathers for real here: what is not there is said with a reason."""
    facts = probe(aims={"reach": ["127.0.0.1:9"], "listen": ["127.0.0.1:0"], "weights": "/"})

    for field in ("settings", "limits", "interfaces", "rdma", "clock", "containers", "weights",
                  "reach", "listen", "home"):  # fmt: skip
        assert facts[field] is not None, field
    assert all(gap["reason"] for gap in facts["unknown"])


def test_nothing_is_no_crash(tmp_path: Path) -> None:
    """A machine without /proc, /sys and /etc is told as unknown, source by source."""
    facts = probe(root=str(tmp_path), aims={"weights": str(tmp_path / "x"), "files": ["/etc/key"]})

    assert {"kernel", "interfaces", "services"} <= {gap["what"] for gap in facts["unknown"]}
    assert [{"path": "/etc/key", "exists": False}] == facts["files"]
