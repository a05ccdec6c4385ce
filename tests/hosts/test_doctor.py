"""The doctor on real hosts: over SSH it leaves nothing, and what it mends is mended there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.rig import ENGINE, ROOT, Rig

SOUND = "count 8\nname NVIDIA H200\nmem_total_mib 143771\nmem_used_mib 4\n"


def _doctor(rig: Rig, plan: Path, *words: str) -> tuple[int, dict[str, Any]]:
    ended = rig.run("doctor", "--plan", str(plan), "--venv", ENGINE, "--json", *words)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode, {one["name"]: one for one in json.loads(ended.stdout)["checks"]}


def _fix(rig: Rig, plan: Path, *words: str) -> str:
    ended = rig.run("doctor", "--plan", str(plan), "--venv", ENGINE, "--fix", *words)
    assert 0 == ended.returncode, ended.stderr
    return ended.stdout


@pytest.fixture
def sound(rig: Rig) -> Iterator[None]:
    """The host's GPUs are sound again afterwards."""
    yield
    rig.gpus(1, SOUND)


def test_a_sound_host_is_fit(rig: Rig, host: str, plan: Path) -> None:
    """Facts come over SSH with what the plan asks for, and nothing is left behind."""
    # Why first: the driver is asked through the bindings that come with kimideploy.
    rig.run("status", host=host)
    before = rig.sh(1, "find /root /tmp /var/lib /etc -newer /etc/kd-host -type f | sort")

    code, checks = _doctor(rig, plan)

    assert 0 == code, [one for one in checks.values() if one["outcome"] == "blocks"]
    assert "pass" == checks["gpu-recovery"]["outcome"]
    assert "8 GPUs answer" == checks["gpu-count"]["findings"][0]["seen"]
    assert f"{ENGINE}/bin/vllm" == checks["engine"]["findings"][0]["seen"]
    assert "all there" in checks["weights"]["findings"][0]["seen"]
    assert "port 8123 of 127.0.0.1 is free" == checks["port"]["findings"][0]["seen"]
    assert before == rig.sh(1, "find /root /tmp /var/lib /etc -newer /etc/kd-host -type f | sort")
    assert host


def test_a_sick_host_is_refused_before_anything(
    rig: Rig, host: str, plan: Path, sound: None
) -> None:
    """`serve` says what the doctor found, changes nothing, and goes on where it is told to."""
    del sound
    rig.gpus(1, f"{SOUND}3.recovery 1\n")

    ended = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=host)

    assert 3 == ended.returncode
    assert "the driver asks for GPU reset" in ended.stderr
    assert "--skip-check gpu-recovery" in ended.stderr
    assert "absent" == rig.status(1)["state"]

    rig.gpus(1, f"{SOUND}pcie_width 8\n")
    warned = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=host)

    assert 0 == warned.returncode, warned.stderr


def test_the_release_that_serves_is_not_in_its_own_way(rig: Rig, host: str, plan: Path) -> None:
    """Port and processes of our own unit are no finding; the same of a stranger are."""
    assert 0 == rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=host).returncode

    _, checks = _doctor(rig, plan)

    assert "pass" == checks["port"]["outcome"]
    assert "release that is replaced" in checks["port"]["findings"][0]["seen"]

    rig.sh(1, "systemctl stop kimideploy")
    rig.sh(1, "systemd-run -q --unit=stranger python3 -m http.server 8123 --bind 127.0.0.1")
    try:
        rig.sh(1, "until ss -ltn | grep -q :8123; do sleep 0.05; done")
        code, checks = _doctor(rig, plan)
    finally:
        rig.sh(1, "systemctl stop stranger")

    assert (1, "blocks") == (code, checks["port"]["outcome"])
    assert "python3" in checks["port"]["findings"][0]["seen"]


def test_balancing_is_mended_and_undone(rig: Rig, host: str, plan: Path) -> None:
    """The kernel's own setting changes, the file keeps it, the journal has it, undo takes it back."""
    was = rig.sh(1, "cat /proc/sys/kernel/numa_balancing").strip()
    rig.sh(1, "echo 1 > /proc/sys/kernel/numa_balancing; mkdir -p /etc/sysctl.d")
    try:
        # Why by hand: one NUMA node is nothing to balance, and the check knows that.
        assert "nothing that the doctor may change" in _fix(rig, plan)
        rig.sh(1, _asked("mend", "numa-balancing"))

        assert "0" == rig.sh(1, "cat /proc/sys/kernel/numa_balancing").strip()
        assert "numa_balancing = 0" in rig.sh(1, "cat /etc/sysctl.d/90-kimideploy.conf")
        history = json.loads(rig.run("history", "--json", host=host).stdout)
        assert "numa-balancing" in json.dumps(history)

        undone = rig.run("doctor", "--undo", host=host)
        assert "as it was before: numa-balancing" in undone.stdout
        assert "1" == rig.sh(1, "cat /proc/sys/kernel/numa_balancing").strip()
        assert "no" == rig.sh(1, "test -e /etc/sysctl.d/90-kimideploy.conf || echo no").strip()
    finally:
        rig.sh(1, f"echo {was} > /proc/sys/kernel/numa_balancing")


def _asked(verb: str, remedy: str) -> str:
    request = json.dumps({"who": "me@here", "remedies": [remedy]})
    return f"echo '{request}' | /opt/kimideploy/app/current/bin/kimideploy host ask {verb}"


def test_shm_grows_and_shrinks(rig: Rig, host: str, plan: Path) -> None:
    """A /dev/shm of 64 MiB blocks, is let grow, and gets its old size back."""
    rig.sh(1, "mount -o remount,size=64M /dev/shm")
    try:
        code, checks = _doctor(rig, plan)
        assert (1, "blocks") == (code, checks["shm"]["outcome"])
        nobody = rig.run("doctor", "--plan", str(plan), "--venv", ENGINE, "--fix", host=host)
        assert 2 == nobody.returncode
        assert "nobody is here to say so" in nobody.stderr
        assert "65536" in rig.sh(1, "df --output=size /dev/shm")

        said = _fix(rig, plan, "--yes")

        assert "/dev/shm grow to" in said
        assert "pass" == _doctor(rig, plan)[1]["shm"]["outcome"]
        assert 0 == rig.run("doctor", "--undo", host=host).returncode
        assert "65536" in rig.sh(1, "df --output=size /dev/shm")
    finally:
        rig.sh(1, "mount -o remount,size=50% /dev/shm")


def test_persistence_by_its_service(rig: Rig, host: str, plan: Path, sound: None) -> None:
    """The daemon is enabled and started, and is as it was after --undo."""
    del sound
    rig.gpus(1, f"{SOUND}persistence 0\n")
    missing = rig.run("doctor", "--plan", str(plan), "--venv", ENGINE, "--fix", "--yes", host=host)
    assert 3 == missing.returncode
    assert "nvidia-persistenced.service is not installed" in missing.stderr
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
    path = "/etc/systemd/system/nvidia-persistenced.service"
    rig.sh(1, f"printf '{unit}' > {path}; systemctl daemon-reload")
    try:
        _fix(rig, plan, "--yes")
        shown = rig.show(1, "ActiveState", "UnitFileState", unit="nvidia-persistenced")
        assert {"ActiveState": "active", "UnitFileState": "enabled"} == shown

        assert 0 == rig.run("doctor", "--undo", host=host).returncode
        shown = rig.show(1, "ActiveState", "UnitFileState", unit="nvidia-persistenced")
        assert {"ActiveState": "inactive", "UnitFileState": "disabled"} == shown
    finally:
        rig.sh(1, f"systemctl disable --now nvidia-persistenced; rm -f {path}; "
                  "systemctl daemon-reload", check=False)  # fmt: skip


def test_limits_of_the_unit(rig: Rig, host: str, plan: Path) -> None:
    """A drop-in that starves the engine is found and overruled, and is no drift of ours."""
    assert 0 == rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=host).returncode
    folder = "/etc/systemd/system/kimideploy.service.d"
    rig.sh(1, f"mkdir {folder}; printf '[Service]\\nLimitNOFILE=1024\\n' > {folder}/50-low.conf;"
              " systemctl daemon-reload")  # fmt: skip
    assert "LimitNOFILE 1024" in _doctor(rig, plan)[1]["unit-limits"]["findings"][0]["seen"]

    _fix(rig, plan, "--yes")

    assert "pass" == _doctor(rig, plan)[1]["unit-limits"]["outcome"]
    assert "90-limits" not in json.dumps(rig.status(1)["drift"])
    rig.sh(1, f"rm {folder}/50-low.conf")
    gone = rig.run("destroy", "--yes", host=host)
    assert 0 == gone.returncode, gone.stderr
    assert "no" == rig.sh(1, f"test -e {folder}/90-limits.conf || echo no").strip()


def test_the_journal_of_the_unit_is_read(rig: Rig, host: str, plan: Path) -> None:
    """`--log unit` says of what an engine on a host died."""
    assert 0 == rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=host).returncode
    # Why an odd one: engines of other tests have died on this host since its boot.
    odd = ROOT / "tests/doctor/logs/sick/vllm-profiling-shared.log"
    before = rig.run("doctor", "--log", "unit", "--json", host=host)
    _written(rig, odd.read_text("utf-8").splitlines()[-1].replace("'", ""))
    found = rig.run("doctor", "--log", "unit", "--json", host=host)
    rig.sh(1, "rm -r /var/log/journal/$(cat /etc/machine-id)")

    assert 0 == found.returncode, found.stderr
    ids = [[one["id"] for one in json.loads(ended.stdout)] for ended in (before, found)]
    assert ["vllm-profiling-shared"] == [one for one in ids[1] if one not in ids[0]]


def _written(rig: Rig, line: str) -> None:
    """Have a line of the unit in the host's journal."""
    boot = rig.sh(1, "cat /proc/sys/kernel/random/boot_id").strip().replace("-", "")
    machine = rig.sh(1, "cat /etc/machine-id").strip()
    # Why right now: lines of one boot are in the order of this clock, and only the last are read.
    uptime = rig.sh(1, "cut -d' ' -f1 /proc/uptime").strip().replace(".", "") + "0000"
    record = (
        f"__REALTIME_TIMESTAMP={rig.sh(1, 'date +%s%6N').strip()}\n"
        f"__MONOTONIC_TIMESTAMP={uptime}\n_BOOT_ID={boot}\n_MACHINE_ID={machine}\n"
        f"_SYSTEMD_UNIT=kimideploy.service\n_TRANSPORT=stdout\nMESSAGE={line}\n\n"
    )
    script = f"printf %s '{record}' > /srv/line.txt; mkdir -p /var/log/journal/{machine};"
    script += " /lib/systemd/systemd-journal-remote"
    script += f" -o /var/log/journal/{machine}/line.journal /srv/line.txt"
    rig.sh(1, script)
