"""What `inspect` shows: whole in 80 columns, and nothing that other programs said obeyed."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from kimideploy.facts.types import (
    CpuFacts,
    DiskFacts,
    EngineFacts,
    GpuFacts,
    GpuProcess,
    HostFacts,
    MemoryFacts,
    PortFacts,
    Unknown,
)
from kimideploy.views.inspect import as_table
from tests import nvml

GIB = 1 << 30


def shown(facts: HostFacts) -> list[str]:
    """Return the lines of the table as a pipe gets them."""
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(as_table(facts))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("case", sorted(path.stem for path in nvml.CASES.glob("*.conf")))
def test_every_machine_fits(machine: Callable[[str], HostFacts], case: str) -> None:
    """No line is wider than 80 columns, and no word is cut off."""
    facts = machine(case)
    lines = shown(facts)

    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)
    words = " ".join(" ".join(lines).split())
    assert all(gap.reason.split()[0] in words for gap in facts.unknown)


def test_h200(machine: Callable[[str], HostFacts]) -> None:
    """A GPU is one line; what holds memory on it follows, without the options it was given."""
    lines = shown(machine("8xh200"))

    start = lines.index("GPUs")
    assert [
        "  #  Name           GiB  Used  CC   NVLinks  Peers  PCIe      Watts",
        "  0  NVIDIA H200  140.4   1.0  9.0  18/18        7  gen5 x16    700",
    ] == [lines[start + 1], lines[start + 2]]
    start = lines.index("On the GPUs")
    assert "    0  4242  1.0  /opt/vllm/bin/python3" == lines[start + 2]


def test_lost_gpu(machine: Callable[[str], HostFacts]) -> None:
    """What is wrong with a GPU is said in a line of its own."""
    assert "  GPU 3  GPU is lost (the kernel log has the Xid; reset it or reboot)" in shown(
        machine("lost")
    )


def test_whole_host() -> None:
    """Each part of a host has its place, with units."""
    facts = HostFacts(
        hostname="gpu-7",
        system="Linux",
        kernel="6.8.0",
        distribution="Ubuntu 24.04.2 LTS",
        glibc="2.39",
        python="3.12.3",
        cpu=CpuFacts(model="EPYC 9654", sockets=2, cores=192, threads=384, numa_nodes=2),
        memory=MemoryFacts(total=1536 * GIB, available=1500 * GIB, limit=512 * GIB),
        disks=(DiskFacts(mount="/models", filesystem="xfs", total=7000 * GIB, free=6000 * GIB),),
        engines=(EngineFacts(engine="vllm", path="/opt/vllm/bin/vllm", version="0.19.1"),),
        ports=(PortFacts(port=22, address="::"), PortFacts(port=8000, address="127.0.0.1")),
        unknown=(Unknown(what="GPUs", reason="no driver"),),
    )

    assert [
        "Host    gpu-7",
        "System  Ubuntu 24.04.2 LTS, Linux 6.8.0, glibc 2.39, Python 3.12.3",
        "CPU     2 x EPYC 9654, 192 cores, 384 threads, 2 NUMA nodes",
        "Memory  1,536.0 GiB, 1,500.0 GiB available, limited to 512.0 GiB",
        "Driver  none",
        "",
        "Disks",
        "  Mounted at  Type  Free GiB   of GiB  Device",
        "  /models     xfs    6,000.0  7,000.0  ?",
        "",
        "Engines",
        "  Engine  Version  Program",
        "  vllm    0.19.1   /opt/vllm/bin/vllm",
        "",
        "Listening",
        "  [::]:22, 127.0.0.1:8000",
        "",
        "Unknown",
        "  GPUs  no driver",
    ] == shown(facts)


def test_notes_of_a_gpu() -> None:
    """What is unusual about a GPU is said; what is unknown is not called unusual."""
    unusual = GpuFacts(
        index=0,
        mig=True,
        ecc=False,
        persistence=False,
        nvlinks_active=17,
        nvlinks_total=18,
        pcie_width=8,
        pcie_width_max=16,
    )
    lines = shown(HostFacts(gpus=(unusual, GpuFacts(index=1))))

    expected = (
        "  GPU 0  MIG is on, ECC is off, persistence mode is off, 1 of 18 NVLinks down,",
        "         PCIe x8 of x16",
    )
    assert expected == tuple(lines[lines.index("GPUs") + 4 :][:2])
    assert not any(line.startswith("  GPU 1") for line in lines)


def test_foreign_text_is_only_text() -> None:
    """Markup and terminal control in names that others chose are shown, not obeyed."""
    process = GpuProcess(pid=1, name="[bold]x\x1b[2J\ny")
    gpu = GpuFacts(index=0, processes=(process,))
    lines = shown(HostFacts(hostname="[red]host", gpus=(gpu,), unknown=(Unknown("a", "[N/A] b"),)))

    assert "Host    [red]host" in lines
    assert any("[bold]x�[2J�y" in line for line in lines)
    assert "  a  [N/A] b" in lines
