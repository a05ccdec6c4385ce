"""The unit under a real systemd: what dies is restarted, what hangs is noticed, nothing leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.hosts.rig import ENGINE, Rig, wait_for

QUICK = "[Service]\nRestartSec=200ms\nWatchdogSec=3s\n"


@pytest.fixture(scope="module")
def served(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Host 2 with an engine that serves, and a unit that is restarted at once."""
    rig.clean(2)
    rig.mode(2, "fine")
    plan = rig.other(tmp_path_factory.mktemp("plans"))
    ended = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=rig.name(2))
    assert 0 == ended.returncode, ended.stderr
    folder = "/etc/systemd/system/kimideploy.service.d"
    rig.sh(2, f"mkdir {folder}; printf '{QUICK}' > {folder}/quick.conf; systemctl daemon-reload")
    yield rig
    rig.sh(2, f"rm -rf {folder}")
    rig.clean(2)


@pytest.fixture
def fresh(served: Rig) -> Rig:
    """The same, running, with no restarts counted."""
    served.mode(2, "fine")
    served.sh(2, "systemctl reset-failed kimideploy; systemctl restart kimideploy")
    return served


def _engines(rig: Rig) -> list[str]:
    return rig.sh(2, "pgrep -f [/]engine.py", check=False).split()


def _restarted(rig: Rig) -> bool:
    shown = rig.show(2, "NRestarts", "ActiveState")
    return shown["ActiveState"] == "active" and int(shown["NRestarts"]) > 0


def test_it_is_hardened(served: Rig) -> None:
    """systemd finds little to complain of: exposure of at most 2.5, and not a word on verifying."""
    served.sh(2, "systemd-analyze security kimideploy --no-pager --threshold=25")
    verified = served.sh(
        2, "systemd-analyze verify --man=no /etc/systemd/system/kimideploy.service 2>&1"
    )

    assert "" == verified


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_dead_engine_is_restarted(fresh: Rig, signal: str) -> None:
    """An engine that dies, also one that leaves with 0, is started again."""
    fresh.sh(2, f"pkill -{signal} -f [/]engine.py")

    wait_for(lambda: _restarted(fresh), 20)

    assert 1 == len(_engines(fresh))


def test_no_engine_outlives_its_unit(fresh: Rig) -> None:
    """When what runs the engine is killed, the engine and its deaf workers are gone, too."""
    fresh.mode(2, "worker")
    fresh.sh(2, "systemctl restart kimideploy")
    before = set(_engines(fresh)) | set(fresh.sh(2, "pgrep -f [S]IG_IGN").split())

    fresh.sh(2, "systemctl kill -s KILL --kill-who=main kimideploy")
    wait_for(lambda: _restarted(fresh), 20)

    after = set(fresh.sh(2, "pgrep -f '[/]engine.py|[S]IG_IGN'").split())
    assert len(before) >= 2
    assert set() == before & after


def test_a_hang_is_noticed(fresh: Rig) -> None:
    """An engine that is up and makes no token any more is ended by the watchdog."""
    fresh.sh(2, "pkill -STOP -f [/]engine.py")

    wait_for(lambda: _restarted(fresh), 40)

    assert "Watchdog timeout" in fresh.sh(2, "journalctl -u kimideploy -o cat -n 60")


def test_a_load_that_fails_ends(fresh: Rig) -> None:
    """Three failures in two hours end it, so that it does not load all night."""
    fresh.mode(2, "oom")
    fresh.sh(2, "systemctl restart kimideploy", check=False)

    wait_for(lambda: fresh.show(2, "ActiveState")["ActiveState"] == "failed", 30)

    assert int(fresh.show(2, "NRestarts")["NRestarts"]) <= 3
    status = fresh.status(2)
    assert any("memory" in trouble["cause"] for trouble in status["troubles"])
    assert "drop-ins change the unit" in " ".join(status["drift"])


def test_a_wrong_word_is_not_tried_again(fresh: Rig) -> None:
    """An engine that refuses its own words ends the unit with 78, once."""
    fresh.mode(2, "usage")
    fresh.sh(2, "systemctl restart kimideploy", check=False)

    wait_for(lambda: fresh.show(2, "ActiveState")["ActiveState"] == "failed", 20)

    assert {"NRestarts": "0", "ExecMainStatus": "78"} == fresh.show(
        2, "NRestarts", "ExecMainStatus"
    )


def test_a_fabric_that_comes_up(fresh: Rig) -> None:
    """An engine that is started by a boot waits for the NVSwitches instead of giving up."""
    sound = "count 8\nname NVIDIA H200\nmem_total_mib 143771\nmem_used_mib 4\n"
    fresh.gpus(2, f"{sound}fabric 2\n5.nvlink_down_3 1\n")
    fresh.sh(2, "systemctl restart --no-block kimideploy")
    wait_for(
        lambda: "waiting for the NVSwitch" in fresh.sh(2, "journalctl -u kimideploy -n 5 -o cat"),
        20,
    )

    fresh.gpus(2, sound)
    wait_for(lambda: fresh.show(2, "ActiveState")["ActiveState"] == "active", 30)

    assert {"NRestarts": "0"} == fresh.show(2, "NRestarts")


def test_xid_lines_are_told(fresh: Rig) -> None:
    """A fault that the driver wrote to the kernel's log is told with its number."""
    boot = fresh.sh(2, "cat /proc/sys/kernel/random/boot_id").strip().replace("-", "")
    machine = fresh.sh(2, "cat /etc/machine-id").strip()
    stamp = fresh.sh(2, "date +%s%6N").strip()
    record = (
        f"__REALTIME_TIMESTAMP={stamp}\n__MONOTONIC_TIMESTAMP=1000000\n_BOOT_ID={boot}\n"
        f"_TRANSPORT=kernel\nPRIORITY=3\nSYSLOG_IDENTIFIER=kernel\n_MACHINE_ID={machine}\n"
        "MESSAGE=NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.\n\n"
    )
    fresh._write(2, "/srv/xid.txt", record)
    fresh.sh(
        2,
        f"mkdir -p /var/log/journal/{machine}; /lib/systemd/systemd-journal-remote"
        f" -o /var/log/journal/{machine}/xid.journal /srv/xid.txt",
    )

    told = json.dumps(fresh.status(2)["troubles"])
    fresh.sh(2, f"rm -r /var/log/journal/{machine}")

    assert "Xid 79" in told
    assert "PCI:0000:3b:00" in told


def test_what_the_engine_may_not(fresh: Rig) -> None:
    """The engine runs as a user that can write nothing that matters, and reach nobody else."""
    pid = _engines(fresh)[0]
    inside = (
        f"nsenter -t {pid} -m setpriv --reuid kimideploy --regid kimideploy --clear-groups sh -c"
    )
    script = (
        "for p in /etc/x /opt/kimideploy/x /var/lib/kimideploy/x /usr/x; do touch $p; done;"
        " ls /root /home 2>&1; cat /etc/shadow"
    )
    said = fresh.sh(2, f"{inside} '{script}' 2>&1", check=False)

    assert 4 == said.count("Read-only file system")
    assert "Permission denied" in said
    assert "root:" not in said
    shown = fresh.show(2, "IPAddressDeny", "NoNewPrivileges", "CapabilityBoundingSet", "User")
    assert "yes" == shown["NoNewPrivileges"]
    assert "" == shown["CapabilityBoundingSet"]
    assert "0.0.0.0/0" in shown["IPAddressDeny"]
