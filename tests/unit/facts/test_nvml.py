"""GPUs over NVML: the real pynvml on a stand-in for the driver's library."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pynvml  # type: ignore[import-untyped]
import pytest

from kimideploy.facts.types import DriverFacts, GpuPeer, GpuProcess, HostFacts
from tests import nvml
from tests.unit.facts.conftest import SYSTEM_PATH, run_probe

MIB = 1 << 20
Machine = Callable[[str], HostFacts]


def about_gpus(facts: HostFacts) -> dict[str, str]:
    """Return what is unknown of GPUs and driver, with reasons."""
    words = re.compile(r"GPU|driver|NVLink|topology", re.IGNORECASE)
    return {gap.what: gap.reason for gap in facts.unknown if words.search(gap.what)}


def test_stub_structs_have_pynvml_sizes(stub: Path) -> None:
    """The stand-in and pynvml agree on the size of every struct that passes between them."""
    sizes = (ctypes.c_uint * 6).in_dll(ctypes.CDLL(str(stub / "libnvidia-ml.so.1")), "stub_sizes")

    theirs = [
        ctypes.sizeof(struct)
        for struct in (
            pynvml.nvmlPciInfo_t,
            pynvml.c_nvmlMemory_t,
            pynvml.c_nvmlMemory_v2_t,
            pynvml.c_nvmlProcessInfo_v3_t,
            pynvml.c_nvmlFieldValue_t,
            pynvml.c_nvmlGpuFabricInfoV_t,
        )
    ]
    assert theirs == list(sizes)
    assert pynvml.nvmlMemory_v2 == ctypes.sizeof(pynvml.c_nvmlMemory_v2_t) | 2 << 24


def test_eight_h200(machine: Machine) -> None:
    """A healthy node is told in full, and nothing about its GPUs is unknown."""
    facts = machine("8xh200")

    assert DriverFacts(version="580.65.06", cuda="13.0", source="nvml") == facts.driver
    assert list(range(8)) == [gpu.index for gpu in facts.gpus]
    first, last = facts.gpus[0], facts.gpus[7]
    assert "NVIDIA H200" == first.name
    assert "GPU-fa4e0000-0000-0000-0000-000000000000" == first.uuid
    assert "00000000:80:00.0" == last.pci_bus_id
    assert (143771 * MIB, 1004 * MIB, 600 * MIB) == (
        first.memory_total,
        first.memory_used,
        first.memory_reserved,
    )
    assert (143771 - 600 - 4) * MIB == last.memory_free
    assert "9.0" == first.compute_capability
    assert (False, True, True) == (first.mig, first.ecc, first.persistence)
    assert 700.0 == first.power_limit_watts
    assert (3201, 6144) == (first.memory_clock_max, first.memory_bus_width)
    assert (5, 5, 16, 16) == (
        first.pcie_generation,
        first.pcie_generation_max,
        first.pcie_width,
        first.pcie_width_max,
    )
    assert (18, 18) == (first.nvlinks_active, first.nvlinks_total)
    assert ("none", False, False, 0) == (
        first.recovery,
        first.rows_pending,
        first.rows_failed,
        first.ecc_uncorrected,
    )
    assert ("up", ()) == (first.fabric, first.slowdowns)
    assert (GpuProcess(pid=4242, name="/opt/vllm/bin/python3", used=1000 * MIB),) == first.processes
    assert () == last.processes
    assert {} == about_gpus(facts)


def test_switch_joins_all_pairs(machine: Machine) -> None:
    """GPUs on one NVSwitch are peers of all others over all their links."""
    for gpu in machine("8xh200").gpus:
        others = [index for index in range(8) if index != gpu.index]
        expected = {GpuPeer(index=index, link="nvlink", nvlinks=18, p2p="ok") for index in others}
        assert expected == set(gpu.peers)


def test_one_a100_in_mig_mode(machine: Machine) -> None:
    """A GPU in MIG mode is said to be, and is nobody's NVLink peer."""
    gpus = machine("8xa100-mig").gpus

    assert [5] == [gpu.index for gpu in gpus if gpu.mig]
    assert "8.0" == gpus[0].compute_capability
    assert {"nvlink"} == {peer.link for peer in gpus[0].peers if peer.index != 5}
    assert {"node", "sys"} == {peer.link for peer in gpus[5].peers}
    assert (0, 0) == (gpus[5].nvlinks_active, gpus[5].nvlinks_total)


def test_sick_gpus(machine: Machine) -> None:
    """What the driver knows of a GPU's health is told: what must be done, memory, fabric, heat."""
    gpus = machine("8xh200-sick").gpus

    assert ["none", "GPU reset", "node reboot", "action 9 of NVML"] == [
        gpu.recovery for gpu in gpus[:4]
    ]
    assert (True, True) == (gpus[4].rows_pending, gpus[4].rows_failed)
    assert 3 == gpus[5].ecc_uncorrected
    assert ["in progress", "failed with NVML's error 999", None] == [
        gpus[6].fabric, gpus[7].fabric, gpus[0].fabric
    ]  # fmt: skip
    assert ("hardware slowdown", "hardware thermal slowdown") == gpus[6].slowdowns
    assert None is gpus[7].recovery


def test_gpu_off_the_bus(machine: Machine) -> None:
    """A lost GPU is a fact with its reason and cure; the others are told and know it not."""
    gpus = machine("lost").gpus

    cure = "GPU is lost (the kernel log has the Xid; reset it or reboot)"
    errors = {gpu.index: gpu.error for gpu in gpus if gpu.error is not None}
    assert {1: "GPU requires restart (nvidia-smi --gpu-reset)", 3: cure, 6: cure} == errors
    assert "NVIDIA H100 80GB HBM3" == gpus[3].name
    assert {2, 4, 5, 7} == {peer.index for peer in gpus[0].peers}
    assert 81559 * MIB == gpus[7].memory_total


def test_old_driver(old_stub: Path) -> None:
    """What an old driver does not export is unknown with that reason; the rest is told."""
    facts = run_probe(env=nvml.environment(old_stub, "old-driver"))

    gpu = facts.gpus[0]
    assert ("440.118.02", "10.2") == (
        facts.driver and facts.driver.version,
        facts.driver and facts.driver.cuda,
    )
    assert (32510 * MIB, 11 * MIB, None) == (gpu.memory_total, gpu.memory_used, gpu.memory_reserved)
    assert (None, ()) == (gpu.mig, gpu.processes)
    assert ["nvlink"] == [peer.link for peer in gpu.peers]
    expected = dict.fromkeys(
        (
            "reserved memory of GPU 0-1",
            "MIG mode of GPU 0-1",
            "far ends of the NVLinks of GPU 0-1",
            "processes of GPU 0-1",
            "remapped rows of GPU 0-1",
            "fabric of GPU 0-1",
            "clocks of GPU 0-1",
        ),
        "Function Not Found",
    )
    assert expected == about_gpus(facts)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("not-loaded", "NVML: Driver Not Loaded (try: modprobe nvidia;"),
        ("mismatch", "NVML: RM has detected an NVML/RM version mismatch (the driver was updated"),
    ],
)
def test_driver_that_does_not_start(stub: Path, tmp_path: Path, case: str, expected: str) -> None:
    """A driver that does not start leaves no GPUs and the reason."""
    facts = run_probe(env=nvml.environment(stub, case) | {"PATH": str(tmp_path)})

    assert () == facts.gpus
    assert expected in about_gpus(facts)["GPUs"]
    assert "nvidia-smi: not in PATH" in about_gpus(facts)["GPUs"]


def test_no_permission(machine: Machine) -> None:
    """What this user may not see is unknown with that reason."""
    facts = machine("no-permission")

    assert "Insufficient Permissions" == facts.gpus[1].error
    assert "NVIDIA H200" == facts.gpus[0].name
    assert {"processes of GPU 0": "Insufficient Permissions"} == about_gpus(facts)


def test_bridges_join_pairs(machine: Machine) -> None:
    """Bridged GPUs are peers of their partner alone, over the links that are up."""
    gpus = machine("4xa6000-pairs").gpus

    def peers(index: int) -> dict[int, tuple[str, int | None]]:
        return {peer.index: (peer.link, peer.nvlinks) for peer in gpus[index].peers}

    assert {1: ("nvlink", 4), 2: ("sys", None), 3: ("sys", None)} == peers(0)
    assert {0: ("sys", None), 1: ("sys", None), 3: ("nvlink", 3)} == peers(2)
    assert (3, 4) == (gpus[3].nvlinks_active, gpus[3].nvlinks_total)


def test_links_without_fabric(machine: Machine) -> None:
    """Links that carry no peer access are no NVLink peers, and that is said."""
    facts = machine("no-fabric")

    assert [("node", None)] == [(peer.link, peer.nvlinks) for peer in facts.gpus[0].peers]
    assert about_gpus(facts)["NVLink"].endswith("refuses peer access over them between GPUs 0-1")


def test_pcie_cards(machine: Machine) -> None:
    """Cards without NVLink have none, reach each other over PCIe, and show a narrow slot."""
    gpus = machine("8xl40s-pcie").gpus

    assert (0, 0) == (gpus[0].nvlinks_active, gpus[0].nvlinks_total)
    assert [(1, "pix"), (2, "node"), (3, "node"), (4, "sys")] == [
        (peer.index, peer.link) for peer in gpus[0].peers[:4]
    ]
    assert "pxb" == next(peer.link for peer in gpus[3].peers if peer.index == 2)
    assert (8, 16) == (gpus[2].pcie_width, gpus[2].pcie_width_max)
    assert [4] == [gpu.index for gpu in gpus if gpu.persistence is False]


def test_gpu_that_shares_memory(machine: Machine) -> None:
    """Memory that the driver does not count is unknown, never zero; no ECC and no MIG are facts."""
    facts = machine("gb10")

    gpu = facts.gpus[0]
    assert (None, None, None) == (gpu.memory_total, gpu.memory_used, gpu.memory_free)
    assert (False, False) == (gpu.mig, gpu.ecc)
    assert (GpuProcess(pid=4242, name=None, used=None),) == gpu.processes
    assert ["memory of GPU 0"] == list(about_gpus(facts))


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no real GPU here")
def test_real_gpu_agrees_with_nvidia_smi() -> None:
    """On a real GPU the two ways to the driver tell the same."""
    real = {"PATH": f"{SYSTEM_PATH}:/usr/local/bin:{os.environ['PATH']}"}
    real["LD_LIBRARY_PATH"] = os.environ.get("LD_LIBRARY_PATH", "")
    over_nvml = run_probe(env=real)
    over_smi = run_probe(python=[sys.executable, "-S"], env=real)

    assert over_nvml.driver is not None
    assert ("nvml", "nvidia-smi") == (
        over_nvml.driver.source,
        over_smi.driver and over_smi.driver.source,
    )
    for one, other in zip(over_nvml.gpus, over_smi.gpus, strict=True):
        assert (one.uuid, one.name, one.memory_total, one.compute_capability) == (
            other.uuid,
            other.name,
            other.memory_total,
            other.compute_capability,
        )


def test_library_runs_in_process(stub: Path) -> None:
    """`inspect_local` gives the same GPUs as the program."""
    code = (
        "import sys, msgspec; from kimideploy.facts.local import inspect_local; "
        "sys.stdout.buffer.write(msgspec.json.encode(inspect_local()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | nvml.environment(stub, "8xh200"),
        check=True,
    )

    assert 8 == len(json.loads(done.stdout)["gpus"])
