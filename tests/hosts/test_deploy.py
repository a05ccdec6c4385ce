"""From a box with sshd to a service, and through its years: by the command line, over SSH."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hosts.rig import ENGINE, WEIGHTS, Rig, wait_for


def _serve(rig: Rig, plan: Path, *words: str, host: str | None = None) -> tuple[int, str, str]:
    ended = rig.run(
        "serve", "--plan", str(plan), "--venv", ENGINE, *words, host=host or rig.name(1)
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_from_nothing_to_a_service(rig: Rig, host: str, plan: Path) -> None:
    """A box with sshd, Python and a driver serves afterwards, enabled and proved."""
    code, out, told = _serve(rig, plan)

    assert 0 == code, told
    assert "http://127.0.0.1:8123/v1\n" == out
    assert "✓ tool id" in told
    shown = rig.show(1, "ActiveState", "UnitFileState", "StatusText", "User")
    assert {"ActiveState": "active", "UnitFileState": "enabled", "StatusText": "serving",
            "User": "kimideploy"} == shown  # fmt: skip
    status = rig.status(1)
    assert (1, "active", 8) == (status["release"], status["state"], len(status["gpus"]))
    assert (
        "/var/lib/kimideploy/releases/1"
        == rig.sh(1, "readlink -f /var/lib/kimideploy/current").strip()
    )
    assert host in rig.name(1)


def test_converged_is_left_alone(rig: Rig, host: str, plan: Path) -> None:
    """The same again changes no file, starts nothing, and writes nothing to the journal."""
    _serve(rig, plan)
    look = (
        "find /var/lib/kimideploy /etc/systemd/system/kimideploy* /etc/kimideploy -type f"
        " -printf '%p %T@ %i\\n' | sort; systemctl show kimideploy -p ActiveEnterTimestamp"
    )
    before = rig.sh(1, look)

    code, out, told = _serve(rig, plan)

    assert (0, "http://127.0.0.1:8123/v1\n") == (code, out)
    assert f"{host}  nothing was to be done; release 1 serves" in told
    assert before == rig.sh(1, look)


def test_dry_run_shows_steps_and_diff(rig: Rig, host: str, plan: Path, tmp_path: Path) -> None:
    """--dry-run names each step that would do something, with the diff, and changes nothing."""
    _serve(rig, plan)
    other = rig.other(tmp_path)
    before = rig.sh(1, "ls -lR /var/lib/kimideploy; cat /etc/systemd/system/kimideploy.service")

    code, out, _ = _serve(rig, other, "--dry-run")

    assert 0 == code
    assert "· release: make release 2" in out
    assert "+ExecStart=" in out
    assert "– engine: as it should be" in out
    assert host in out
    assert before == rig.sh(
        1, "ls -lR /var/lib/kimideploy; cat /etc/systemd/system/kimideploy.service"
    )


def test_a_dry_run_installs_nothing(rig: Rig, tmp_path: Path) -> None:
    """On a host that was never seen before, a dry run leaves nothing behind."""
    rig.clean(2)
    rig.sh(2, "rm -rf /opt/kimideploy")
    before = rig.sh(2, "ls -a /opt /var/lib /etc | sort")

    ended = rig.run(
        "serve", "--plan", str(rig.plan(tmp_path)), "--venv", ENGINE, "--dry-run", host=rig.name(2)
    )

    assert 0 == ended.returncode, ended.stderr
    assert "install kimideploy, then look at: user and folders, engine" in ended.stdout
    assert before == rig.sh(2, "ls -a /opt /var/lib /etc | sort")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("oom", "out of memory"),
        ("exits-0", "ended with status 0"),
        ("wrong-model", "it serves another"),
        ("no-parser", "breaks a promise"),
        ("dies-asked", "out of memory"),
    ],
)
def test_a_failed_gate_rolls_back(
    rig: Rig, host: str, plan: Path, tmp_path: Path, mode: str, said: str
) -> None:
    """A release that fails its trial is taken back by the host, and the one before serves."""
    _serve(rig, plan)
    rig.mode(1, mode)

    code, out, told = _serve(rig, rig.other(tmp_path))
    rig.mode(1, "fine")

    assert (5, "") == (code, out)
    assert said in told.lower(), told
    assert "release 1 serves as before" in told
    assert host
    wait_for(lambda: rig.show(1, "ActiveState")["ActiveState"] == "active", 20)
    assert "releases/1" == rig.sh(1, "readlink /var/lib/kimideploy/current").strip()
    assert " run --scope system 1" in rig.sh(
        1, "grep ^ExecStart /etc/systemd/system/kimideploy.service"
    )
    entries = rig.sh(1, "cat /var/lib/kimideploy/journal.jsonl").splitlines()
    assert "undone" == json.loads(entries[-1])["result"]
    assert "" == rig.sh(1, "ls /var/lib/kimideploy/pending.json 2>/dev/null", check=False)
    assert 0 == rig.run("diff", host=rig.name(1)).returncode


def test_what_can_be_checked_stops_nothing(rig: Rig, host: str, plan: Path, tmp_path: Path) -> None:
    """Weights that are missing are found before the release before is stopped."""
    _serve(rig, plan)
    began = rig.show(1, "ActiveEnterTimestampMonotonic")

    code, _, told = _serve(rig, rig.plan(tmp_path, model_path="/srv/models/none"))

    assert 4 == code
    assert "/srv/models/none: there is no such folder" in told
    assert began == rig.show(1, "ActiveEnterTimestampMonotonic")
    assert host


def test_years(rig: Rig, host: str, plan: Path, tmp_path: Path) -> None:
    """Rollback, history, diff, stop, start, restart, logs and destroy do what they say."""
    _serve(rig, plan)
    _serve(rig, rig.other(tmp_path))

    differs = rig.run("diff", "1", host=host)
    assert 1 == differs.returncode
    assert "+--seed=7" in differs.stdout

    assert 0 == rig.run("rollback", host=host).returncode
    assert "--seed=7" not in rig.sh(1, "ps ax -o args | grep [e]ngine.py")
    past = json.loads(rig.run("history", "--json", host=host).stdout)
    assert [(2, False), (1, True)] == [(r["number"], r["current"]) for r in past["releases"]]
    assert {"rollback", "apply", "step"} >= {entry["action"] for entry in past["entries"]}

    assert "inactive\n" == rig.run("stop", host=host).stdout.replace(f"{host}  ", "")
    assert 1 == rig.run("status", host=host).returncode
    assert "" == rig.sh(1, "ps ax -o args | grep [e]ngine.py", check=False)
    assert 0 == rig.run("start", host=host).returncode
    wait_for(lambda: rig.show(1, "ActiveState")["ActiveState"] == "active", 30)
    assert 0 == rig.run("restart", host=host).returncode
    wait_for(lambda: rig.show(1, "ActiveState")["ActiveState"] == "active", 30)
    assert "Application startup complete." in rig.run("logs", "-n", "50", host=host).stdout

    refused = rig.run("destroy", host=host)
    assert 2 == refused.returncode
    assert "--yes" in refused.stderr
    assert 0 == rig.run("destroy", "--yes", host=host).returncode
    assert "models\n" == rig.sh(1, "ls /var/lib/kimideploy")
    assert "" == rig.sh(
        1,
        "ls -d /opt/kimideploy /etc/kimideploy /etc/systemd/system/kimideploy* 2>/dev/null",
        check=False,
    )
    assert "" == rig.sh(1, "id kimideploy 2>/dev/null", check=False)


def test_by_hand_is_seen(rig: Rig, host: str, plan: Path) -> None:
    """What was changed by hand is drift in `status`, and the next serve puts it right."""
    _serve(rig, plan)
    rig.sh(
        1, "sed -i s/^TimeoutStopSec=.*/TimeoutStopSec=1/ /etc/systemd/system/kimideploy.service;"
        " systemctl disable -q kimideploy"
    )  # fmt: skip

    drift = " ".join(rig.status(1)["drift"])
    shown = rig.run("diff", host=host)
    code, _, _ = _serve(rig, plan)

    assert "changed by hand" in drift
    assert "not enabled" in drift
    assert "+TimeoutStopSec=1" in shown.stdout
    assert 0 == code
    assert [] == rig.status(1).get("drift", [])


@pytest.mark.parametrize("kib", [0, 16, 32])
def test_a_full_disk(rig: Rig, host: str, plan: Path, tmp_path: Path, kib: int) -> None:
    """A disk that is full at once, or in the middle, stops a change in plain words and no engine."""
    _serve(rig, plan)
    began = rig.show(1, "ActiveEnterTimestampMonotonic")
    state = "/var/lib/kimideploy"
    rig.sh(1, f"cp -a {state} /srv/kept; mount -t tmpfs -o size=40m,mode=755 tmpfs {state};"
           f" cp -a /srv/kept/. {state}; head -c {kib}k /dev/zero > {state}/room;"
           f" dd if=/dev/zero of={state}/full bs=4k 2>/dev/null; rm {state}/room")  # fmt: skip
    other = rig.other(tmp_path)
    try:
        full = _serve(rig, other)
        there = rig.show(1, "ActiveState", "ActiveEnterTimestampMonotonic")
        rig.sh(1, f"rm {state}/full")
        after = _serve(rig, other)
    finally:
        rig.sh(1, f"systemctl stop kimideploy; umount {state}; rm -r /srv/kept", check=False)

    assert full[0] in (3, 5), full
    assert "No space left on device" in full[2] or "MiB free, and a change must be" in full[2]
    assert "Traceback" not in full[2]
    assert "bug" not in full[2]
    assert "active" == there["ActiveState"]
    assert began.items() <= there.items()
    assert 0 == after[0], after
    assert host


def test_a_lock_that_is_none(rig: Rig, host: str, plan: Path) -> None:
    """What somebody else wrote into the lock, the hold or the trial's file stops nobody for good."""
    _serve(rig, plan)
    state = "/var/lib/kimideploy"
    rig.sh(1, f"echo '{{\"who\": 3' > {state}/lock; printf '\\377' > {state}/hold.json")

    status = rig.status(1)
    code, _, told = _serve(rig, plan)

    assert "active" == status["state"]
    assert (0, True) == (code, "nothing was to be done" in told)
    assert host


def test_what_its_user_cannot_reach(rig: Rig, host: str, plan: Path, tmp_path: Path) -> None:
    """An engine or weights that are closed to the service's user are found before anything stops."""
    _serve(rig, plan)
    began = rig.show(1, "ActiveEnterTimestampMonotonic")
    rig.sh(1, f"cp -a {ENGINE} /root/engine; cp -a {WEIGHTS} /srv/models/closed;"
           " chmod 600 /srv/models/closed/config.json")  # fmt: skip
    closed = rig.plan(tmp_path, model_path="/srv/models/closed")

    program = rig.run("serve", "--plan", str(plan), "--venv", "/root/engine", host=host)
    weights = _serve(rig, closed)
    rig.sh(1, "rm -r /root/engine /srv/models/closed")

    assert 3 == program.returncode
    assert "can't reach /root/engine/bin/vllm (/root is closed to it)" in program.stderr
    assert (3, "") == weights[:2]
    assert "kimideploy can't reach /srv/models/closed/config.json" in weights[2]
    assert began == rig.show(1, "ActiveEnterTimestampMonotonic")


def test_an_environment_in_a_home(rig: Rig, host: str, plan: Path) -> None:
    """An environment in a home that is open to others is seen by the unit."""
    rig.sh(1, f"chmod 755 /home/ops; cp -a {ENGINE} /home/ops/engine")

    ended = rig.run("serve", "--plan", str(plan), "--venv", "/home/ops/engine", host=host)
    rig.sh(1, "rm -r /home/ops/engine; chmod 700 /home/ops")

    assert 0 == ended.returncode, ended.stderr
    assert {"ProtectHome": "read-only"} == rig.show(1, "ProtectHome")


def test_a_sick_gpu_is_not_hammered(rig: Rig, host: str, plan: Path) -> None:
    """A GPU that is lost ends the start with 78: the reason is told and nothing is restarted."""
    _serve(rig, plan)
    rig.gpus(1, "count 8\nname NVIDIA H200\nmem_total_mib 143771\n3.error 15\n")

    rig.sh(1, "systemctl restart kimideploy", check=False)
    shown = rig.show(1, "ActiveState", "NRestarts", "ExecMainStatus")
    status = rig.status(1)
    rig.gpus(1, "count 8\nname NVIDIA H200\nmem_total_mib 143771\nmem_used_mib 4\n")

    assert {"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "78"} == shown
    assert "GPU 3 is lost" in status["report"]["why"]
    assert host
