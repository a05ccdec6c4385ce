"""GPUs where NVML can't load: a real `nvidia-smi` process that prints the real format."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from kimideploy.facts.types import DriverFacts, GpuPeer, GpuProcess, HostFacts
from tests.unit.facts.conftest import SYSTEM_PATH, run_probe

MIB = 1 << 20
#: no site-packages, so no pynvml: what `python3 -` is on most hosts
BARE = (sys.executable, "-S")
ROWS = """\
0, NVIDIA A100-SXM4-80GB, GPU-11111111-2222-3333-4444-000000000000, 00000000:07:00.0, 81920, 1205, 80109, 606, 8.0, Disabled, Enabled, Enabled, 400.00, 4, 4, 16, 16, 550.163.01
1, NVIDIA A100-SXM4-80GB, GPU-11111111-2222-3333-4444-000000000001, 00000000:0F:00.0, 81920, 4, 81310, 606, 8.0, Enabled, Enabled, Disabled, [N/A], 1, 4, 8, 16, 550.163.01
"""  # noqa: E501
APPS = "GPU-11111111-2222-3333-4444-000000000000, 4242, /opt/a, b/python3 --token sesame, 1198\n"
TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV12\tPXB\t48-63,176-191\t3\t\tN/A
GPU1\tNV12\t X \tSYS\t16-31,144-159\t1\t\tN/A
NIC0\tPXB\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""
BANNER = "| NVIDIA-SMI 550.163.01   Driver Version: 550.163.01   CUDA Version: 12.4     |\n"


def install(folder: Path, name: str, body: str) -> str:
    """Write an executable shell script and return a PATH that finds it first."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    return f"{folder}:{SYSTEM_PATH}"


def nvidia_smi(
    folder: Path, *, rows: str = ROWS, code: int = 0, apps: str = APPS, query: str = ""
) -> str:
    """Install an nvidia-smi; *query* is shell that may answer `--query-gpu` first."""
    for name, text in (("rows", rows), ("apps", apps), ("topo", TOPOLOGY), ("banner", BANNER)):
        (folder / name).write_text(text, encoding="utf-8")
    body = f"""cd {folder}
case "$1" in
  --query-gpu=*) {query} cat rows; exit {code};;
  --query-compute-apps=*) cat apps;;
  topo) cat topo;;
  *) cat banner;;
esac"""
    return install(folder, "nvidia-smi", body)


def reasons(facts: HostFacts) -> dict[str, str]:
    """Return what is unknown, with reasons."""
    return {gap.what: gap.reason for gap in facts.unknown}


def test_two_gpus(tmp_path: Path) -> None:
    """Everything that nvidia-smi can tell is told, and why NVML was not asked."""
    facts = run_probe(python=BARE, env={"PATH": nvidia_smi(tmp_path)})

    assert DriverFacts(version="550.163.01", cuda="12.4", source="nvidia-smi") == facts.driver
    first, second = facts.gpus
    assert ("NVIDIA A100-SXM4-80GB", "8.0", 400.0) == (
        first.name,
        first.compute_capability,
        first.power_limit_watts,
    )
    assert (81920 * MIB, 1205 * MIB, 80109 * MIB, 606 * MIB) == (
        first.memory_total,
        first.memory_used,
        first.memory_free,
        first.memory_reserved,
    )
    assert (False, True, True) == (first.mig, first.ecc, first.persistence)
    assert (True, True, False, None) == (
        second.mig,
        second.ecc,
        second.persistence,
        second.power_limit_watts,
    )
    assert (1, 4, 8, 16) == (
        second.pcie_generation,
        second.pcie_generation_max,
        second.pcie_width,
        second.pcie_width_max,
    )
    assert (GpuProcess(pid=4242, name="/opt/a, b/python3", used=1198 * MIB),) == first.processes
    assert (GpuPeer(index=0, link="nvlink", nvlinks=12),) == second.peers
    assert "NVML: pynvml is not installed" == reasons(facts)["GPUs in full"]


def test_pynvml_without_library(tmp_path: Path) -> None:
    """Where pynvml finds no library, nvidia-smi is asked too."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("the library is there")
    facts = run_probe(env={"PATH": nvidia_smi(tmp_path)})

    assert 2 == len(facts.gpus)
    assert "NVML: NVML Shared Library Not Found" == reasons(facts)["GPUs in full"]


def test_field_that_an_old_nvidia_smi_lacks(tmp_path: Path) -> None:
    """An unknown field costs that field alone."""
    rows = "\n".join(line.replace(" 606,", "", 1) for line in ROWS.splitlines()) + "\n"
    query = (
        """case "$1" in *memory.reserved*) """
        """echo 'Field "memory.reserved" is not a valid field to query.'; exit 2;; esac;"""
    )
    facts = run_probe(python=BARE, env={"PATH": nvidia_smi(tmp_path, rows=rows, query=query)})

    assert [None, None] == [gpu.memory_reserved for gpu in facts.gpus]
    assert ["8.0", "8.0"] == [gpu.compute_capability for gpu in facts.gpus]
    assert "this nvidia-smi does not know the field" == reasons(facts)["memory.reserved"]


@pytest.mark.parametrize(
    ("where", "index", "error"),
    [
        ("GPU0000:0F:00.0", 1, "GPU is lost.  Reboot the system to recover this GPU"),
        ("GPU 0000:0F:00.0", 1, "Unknown Error"),
        ("GPU5: 0000:0F:00.0", 5, "Unknown Error"),
    ],
)
def test_lost_gpu(tmp_path: Path, where: str, index: int, error: str) -> None:
    """A GPU without a handle is a fact with nvidia-smi's words, beside those that answer."""
    line = f"Unable to determine the device handle for {where}: {error}"
    rows = f"{ROWS.splitlines()[0]}\n{line}\n"
    facts = run_probe(python=BARE, env={"PATH": nvidia_smi(tmp_path, rows=rows, code=15)})

    lost = facts.gpus[1]
    assert (index, error, "0000:0F:00.0") == (lost.index, lost.error, lost.pci_bus_id)
    assert None is facts.gpus[0].error


def test_row_of_errors(tmp_path: Path) -> None:
    """A row that holds errors instead of values is a GPU that failed."""
    row = "1" + ", [Unknown Error]" * 17 + "\n"
    facts = run_probe(
        python=BARE, env={"PATH": nvidia_smi(tmp_path, rows=ROWS.splitlines()[0] + "\n" + row)}
    )

    assert ("Unknown Error", None) == (facts.gpus[1].error, facts.gpus[1].memory_total)


def test_driver_that_fails(tmp_path: Path) -> None:
    """What nvidia-smi says instead of GPUs is the reason that there are none."""
    words = (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        "Make sure that the latest NVIDIA driver is installed and running."
    )
    facts = run_probe(python=BARE, env={"PATH": nvidia_smi(tmp_path, rows=words + "\n\n", code=9)})

    assert () == facts.gpus
    assert f"nvidia-smi: {words}" in reasons(facts)["GPUs"]


def test_nvidia_smi_that_hangs(tmp_path: Path) -> None:
    """A program that hangs is ended at the deadline, with its children, and said."""
    path = install(tmp_path, "nvidia-smi", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    began = time.monotonic()
    facts = run_probe("--deadline", "1", python=BARE, env={"PATH": path})

    assert time.monotonic() - began < 10
    assert "nvidia-smi: nvidia-smi did not answer within 1 s" in reasons(facts)["GPUs"]
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert not child.exists() or child.read_text().split(") ")[1].startswith("Z")


def test_no_gpu_at_all(tmp_path: Path) -> None:
    """Without any driver the reason names each way that was tried."""
    facts = run_probe(python=BARE, env={"PATH": str(tmp_path)})

    if facts.gpus:
        pytest.skip("there is a GPU driver here outside PATH")
    assert None is facts.driver
    expected = "NVML: pynvml is not installed; nvidia-smi: not in PATH; rocm-smi: not in PATH"
    assert reasons(facts)["GPUs"].startswith(expected)


def test_amd_gpu(tmp_path: Path) -> None:
    """rocm-smi's JSON gives name, memory and architecture; what it does not give is said."""
    cards = """WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status
{"card0": {"VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "297238528",
 "Card Series": "AMD Instinct MI300X", "Card Model": "0x74a1", "GFX Version": "gfx942"},
 "system": {"Driver version": "6.10.5"}}"""  # noqa: E501
    (tmp_path / "cards").write_text(cards, encoding="utf-8")
    facts = run_probe(
        python=BARE, env={"PATH": install(tmp_path, "rocm-smi", f"cat {tmp_path}/cards")}
    )

    assert DriverFacts(version="6.10.5", source="rocm-smi") == facts.driver
    (gpu,) = facts.gpus
    assert ("AMD Instinct MI300X", "gfx942", 206141652992) == (
        gpu.name,
        gpu.compute_capability,
        gpu.memory_total,
    )
    assert "links, processes and modes of AMD GPUs" in reasons(facts)


def test_amd_program_that_fails(tmp_path: Path) -> None:
    """rocm-smi without JSON is a reason, no crash."""
    facts = run_probe(
        python=BARE, env={"PATH": install(tmp_path, "rocm-smi", "echo no kfd; exit 1")}
    )

    assert "rocm-smi: it printed no JSON: no kfd" in reasons(facts)["GPUs"]
