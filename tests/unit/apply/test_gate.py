"""Which GPUs may be given to an engine; the facts come from the real binding on a stub driver."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kimideploy.apply.gate import is_coming_up, judge
from kimideploy.engines import complete
from kimideploy.engines.site import sites
from kimideploy.facts.types import GpuFacts, GpuProcess, HostFacts
from kimideploy.quantities import GIB
from tests import nvml
from tests.unit.engines.plans import CATALOG, plan
from tests.unit.facts.conftest import run_probe

SOUND = GpuFacts(
    index=0,
    name="NVIDIA H200",
    memory_used=0,
    mig=False,
    persistence=True,
    nvlinks_active=18,
    nvlinks_total=18,
    recovery="none",
    rows_pending=False,
    rows_failed=False,
    ecc_uncorrected=0,
    fabric="up",
    slowdowns=(),
    pcie_width=16,
    pcie_width_max=16,
)


def _judged(*gpus: GpuFacts) -> list[tuple[str, str]]:
    site = sites(complete(plan(), CATALOG), CATALOG)[0]
    host = HostFacts(hostname="h", gpus=gpus)
    return [(check.outcome, check.evidence) for check in judge(site, host)]


def _eight(**change: object) -> list[tuple[str, str]]:
    """Return what is said of eight GPUs of which the third differs."""
    gpus = [msgspec.structs.replace(SOUND, index=index) for index in range(8)]
    gpus[3] = msgspec.structs.replace(gpus[3], **change)
    return _judged(*gpus)


def test_sound_gpus_pass() -> None:
    """Eight sound GPUs are one line."""
    assert [("pass", "8 GPUs answer, and nothing else computes on them")] == _eight()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"error": "GPU is lost"}, "GPU 3 is lost"),
        ({"recovery": "GPU reset"}, "the driver asks for GPU reset"),
        ({"recovery": "drain and reset"}, "the driver asks for drain and reset"),
        ({"rows_failed": True, "rows_pending": True}, "can't be replaced by spare rows"),
        ({"fabric": "in progress"}, "error 802"),
        ({"mig": True}, "MIG"),
        ({"nvlinks_active": 17}, "GPU 3 has 17 NVLinks up, and others of its kind have 18"),
        ({"nvlinks_active": 0}, "GPU 3 has 0 NVLinks up"),
        ({"processes": (GpuProcess(pid=7, name="python", used=3 * GIB),)}, "python (pid 7)"),
        ({"memory_used": 9 * GIB}, "taken by nobody the driver shows"),
    ],
)
def test_sick_gpus_are_refused(change: dict[str, object], said: str) -> None:
    """What makes a launch vain is a failure that names the GPU."""
    failed = [evidence for outcome, evidence in _eight(**change) if outcome == "fail"]

    assert any(said in evidence for evidence in failed), failed
    assert not any(outcome == "pass" for outcome, _ in _eight(**change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_pending": True}, "the next reset replaces"),
        ({"ecc_uncorrected": 3}, "3 memory errors"),
        ({"slowdowns": ("hardware slowdown",)}, "held back: hardware slowdown"),
        ({"pcie_width": 8}, "8 of 16 PCIe lanes"),
        ({"persistence": False}, "persistence mode"),
    ],
)
def test_tired_gpus_are_told(change: dict[str, object], said: str) -> None:
    """What slows or worries is told, and hinders nothing."""
    judged = _eight(**change)

    assert {"pass", "warn"} == {outcome for outcome, _ in judged}
    assert any(outcome == "warn" and said in evidence for outcome, evidence in judged)


def test_what_is_unknown_hinders_nothing() -> None:
    """A driver that can't say how its GPUs are is no reason to refuse them."""
    gpus = [GpuFacts(index=index, name="NVIDIA H200") for index in range(8)]

    assert [("pass", "8 GPUs answer, and nothing else computes on them")] == _judged(*gpus)


def test_cards_without_bridges_are_sound() -> None:
    """Cards that bridges join, some or none of them, are not called broken."""
    cards = [msgspec.structs.replace(SOUND, index=i, fabric=None) for i in range(8)]
    none = [msgspec.structs.replace(card, nvlinks_active=0) for card in cards]

    assert [("pass", "8 GPUs answer, and nothing else computes on them")] == _judged(*none)
    assert "pass" == _judged(*cards[:7], none[7])[0][0]


def test_a_fabric_that_comes_up() -> None:
    """Soon after a boot the switches are still being set up, and that is told from a failure."""
    states = {"in progress": True, "not started": True, "up": False, "state 9 of NVML": False}

    for state, coming in states.items():
        host = HostFacts(hostname="h", gpus=(msgspec.structs.replace(SOUND, fabric=state),))
        assert coming is is_coming_up(host)


def test_through_the_real_binding(tmp_path: Path) -> None:
    """Each fault that the stub driver shows is judged as it should be."""
    stub = nvml.build(tmp_path)
    site = sites(complete(plan(), CATALOG), CATALOG)[0]

    judged = judge(site, run_probe(env=nvml.environment(stub, "8xh200-sick")))

    failed = " / ".join(check.evidence for check in judged if check.outcome == "fail")
    assert "pass" not in {check.outcome for check in judged}
    for words in ("GPU 1 is not fit", "GPU 2", "GPU 3", "GPU 4 has broken", "fabric of GPU 6"):
        assert words in failed
    assert all(check.fix for check in judged if check.outcome == "fail")
