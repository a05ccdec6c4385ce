"""Several hosts, several nodes of one model, users without root, and words that bite."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.flows.standalone import source
from tests.hosts.rig import ENGINE, Rig, wait_for

NASTY = "/srv/a b'c$(id)`x`%n%%;☃\\x"


def test_one_that_fails_leaves_the_others(rig: Rig, both: list[str], plan: Path) -> None:
    """Of two hosts one lacks the weights: it is told, and the other serves."""
    rig.sh(3, "mv /srv/models/kimi /srv/models/away")

    ended = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=both)
    rig.sh(3, "mv /srv/models/away /srv/models/kimi")
    status = rig.run("status", "--json", host=both)

    assert 4 == ended.returncode
    assert f"{both[1]}: /srv/models/kimi: there is no such folder" in ended.stderr
    assert f"{both[0]}  done; release 1 serves" in ended.stderr
    assert 1 == status.returncode
    states = {name: one["state"] for name, one in json.loads(status.stdout).items()}
    assert {both[0]: "active", both[1]: "absent"} == states


def test_two_nodes_of_one_model(rig: Rig, both: list[str]) -> None:
    """Each node gets its own words; both are confirmed when both are well, and stop together."""
    words = ("serve", "--rehearse", "--hardware", "2x8xH100-80GB", "--goal", "context")

    ended = rig.run(*words, host=both)
    argv = [rig.sh(n, "ps ax -o args | grep [k]imideploy.rehearsal") for n in (2, 3)]

    assert 0 == ended.returncode, ended.stderr
    assert "--nnodes 2" in argv[0]
    assert f"--master-addr {rig.ip(2)}" in argv[1]
    assert ("--headless" in argv[0], "--headless" in argv[1]) == (False, True)
    assert ["1", "1"] == [
        rig.sh(n, "basename $(readlink /var/lib/kimideploy/current)").strip() for n in (2, 3)
    ]
    assert "" == rig.sh(3, "ls /var/lib/kimideploy/pending.json 2>/dev/null", check=False)
    again = rig.run(*words, host=both)
    assert 2 == again.stderr.count("nothing was to be done")
    rig.sh(2, "systemctl stop kimideploy.target")
    wait_for(lambda: rig.show(2, "ActiveState")["ActiveState"] == "inactive", 20)


def test_a_node_that_fails_takes_the_others_back(rig: Rig, both: list[str]) -> None:
    """When one node does not come up, the other does not stay on trial."""
    rig.sh(3, "systemd-run -q --unit=squat --collect python3 -m http.server 8000 --bind 127.0.0.1")
    rig.sh(3, "for i in $(seq 50); do ss -ltn | grep -q :8000 && break; sleep .1; done")

    ended = rig.run(
        "serve", "--rehearse", "--hardware", "2x8xH100-80GB", "--goal", "context",
        host=[both[1], both[0]],
    )  # fmt: skip
    rig.sh(3, "systemctl stop squat")

    assert 6 == ended.returncode, ended.stderr
    assert "port 8000 of 127.0.0.1 is taken by python3" in ended.stderr
    wait_for(lambda: rig.show(2, "ActiveState")["ActiveState"] == "inactive", 30)
    assert "" == rig.sh(2, "ls /var/lib/kimideploy/current 2>/dev/null", check=False)


def test_a_host_is_planned_for(rig: Rig, both: list[str]) -> None:
    """Without --plan the plan is for what the host's own driver says it is."""
    ended = rig.run(
        "serve", "--model-path", "/srv/models/kimi", "--venv", ENGINE, "--port", "8123",
        host=both[0],
    )  # fmt: skip
    status = rig.status(2)

    assert 0 == ended.returncode, ended.stderr
    assert "8×h200 TP8" in status["candidate"]
    assert 0 == rig.run("upgrade", host=both[0]).returncode


def test_an_engine_is_installed(rig: Rig, both: list[str], tmp_path: Path) -> None:
    """Without --venv the engine of the pinned version is installed by uv, and checked by import."""
    wheels = tmp_path / "wheels"
    shutil.copytree(rig.wheels, wheels)
    engine = source()
    _wheel(wheels, "vllm", "0.32.0", engine)
    _wheel(wheels, "tiktoken", "0.9", "")
    _wheel(wheels, "blobfile", "3.0", "raise ImportError('no lxml')\n")
    plan = str(rig.plan(tmp_path))

    rig.run("status", host=both[0])
    dry = rig.run("serve", "--plan", plan, "--dry-run", "--wheelhouse", str(wheels), host=both[0])
    broken = rig.run("serve", "--plan", plan, "--wheelhouse", str(wheels), host=both[0])
    _wheel(wheels, "blobfile", "3.1", "# now it can be imported\n")
    whole = rig.run("serve", "--plan", plan, "--wheelhouse", str(wheels), host=both[0])
    again = rig.run("serve", "--plan", plan, "--wheelhouse", str(wheels), host=both[0])

    assert "engine: uv pip install vllm==0.32.0 tiktoken blobfile" in dry.stdout, dry.stderr
    assert 5 == broken.returncode
    assert "can't be imported: ImportError: no lxml" in broken.stderr
    assert 0 == whole.returncode, whole.stderr
    assert "/opt/kimideploy/engines/vllm-0.32.0-" in rig.sh(
        2, "cat /etc/systemd/system/kimideploy.service"
    )
    assert "nothing was to be done" in again.stderr


def test_words_arrive_as_they_are(rig: Rig, both: list[str], tmp_path: Path) -> None:
    """A path with blanks, quotes, $(), % and a snowman goes unchanged from the plan to argv."""
    rig.sh(2, f"cp -r /srv/models/kimi {_quoted(NASTY)}")
    plan = rig.plan(tmp_path, model_path=NASTY.replace("\\x", ""))
    rig.sh(2, f"mv {_quoted(NASTY)} {_quoted(NASTY.replace(chr(92) + 'x', ''))}")

    ended = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=both[0])
    argv = rig.sh(2, "tr '\\0' '\\n' < /proc/$(pgrep -f [/]engine.py | head -1)/cmdline")

    assert 0 == ended.returncode, ended.stderr
    assert NASTY.replace("\\x", "") in argv.splitlines()
    rig.sh(2, "rm -r /srv/a*")


def test_secrets_are_nowhere(rig: Rig, both: list[str], plan: Path, tmp_path: Path) -> None:
    """The password of sudo and the hub's token are in no output, argv, journal or open file."""
    password, token = tmp_path / "sudo", tmp_path / "token"
    password.write_text("open sesame 42\n", encoding="utf-8")
    token.write_text("hf_canary_0123456789\n", encoding="utf-8")
    for path in (password, token):
        path.chmod(0o600)

    ended = rig.run(
        "serve", "--plan", str(plan), "--venv", ENGINE, "--sudo-password-file", str(password),
        "--hub-token-file", str(token), host=rig.name(2, "asks"),
    )  # fmt: skip
    status = rig.run(
        "status", "--json", "--sudo-password-file", str(password), host=rig.name(2, "asks")
    )

    assert 0 == ended.returncode, ended.stderr
    assert both
    heard = ended.stdout + ended.stderr + status.stdout + status.stderr
    searched = rig.sh(
        2,
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -a -c -e [s]esame -e [c]anary;"
        " journalctl -o export | grep -a -c -e 'open [s]esame' -e 'hf_[c]anary';"
        " grep -r -l -e 'open [s]esame' -e 'hf_[c]anary' /var/lib/kimideploy /etc /run /opt/kimideploy"
        " /home /var/log 2>/dev/null; stat -c '%a %U' /etc/kimideploy/hub.token",
        check=False,
    )
    assert "sesame" not in heard
    assert "canary" not in heard
    assert ["0", "0", "/etc/kimideploy/hub.token", "600 root"] == searched.splitlines()
    password.chmod(0o644)
    open_ = rig.run("status", "--sudo-password-file", str(password), host=rig.name(2, "asks"))
    assert 2 == open_.returncode
    assert "can be read by others" in open_.stderr


def test_without_root(rig: Rig, both: list[str]) -> None:
    """A user without sudo gets a service of their own, which a boot starts, too."""
    name = rig.name(3, "plain")

    ended = rig.run("serve", "--rehearse", "--scope", "user", host=name)
    status = rig.run("status", "--scope", "user", "--json", host=name)
    assert 0 == ended.returncode, ended.stderr
    assert "active" == json.loads(status.stdout)[name]["state"]
    assert "" == rig.sh(3, "ls -d /opt/kimideploy/app /var/lib/kimideploy/releases 2>/dev/null |"
                           " grep releases", check=False)  # fmt: skip
    rig.kill(3)
    rig.boot(3)
    wait_for(lambda: "200" in rig.sh(3, _ASK, check=False), 40)
    gone = rig.run("destroy", "--scope", "user", "--yes", host=name)

    assert 0 == gone.returncode, gone.stderr
    assert both


def test_facts_leave_nothing_behind(rig: Rig) -> None:
    """inspect --host needs Python alone, and what it saw plans anywhere."""
    look = "find / -xdev -newer /etc/kd-host -not -path '/proc/*' -not -path '/var/log/*' -not -path '/var/lib/systemd/*' -type f | sort | md5sum"
    before = rig.sh(2, look)

    ended = rig.run("inspect", "--json", host=rig.name(2, "plain"))
    planned = subprocess.run(
        [sys.executable, "-m", "kimideploy", "plan", "--facts", "-", "--json"],
        input=ended.stdout, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == ended.returncode, ended.stderr
    assert "h2" == json.loads(ended.stdout)["hostname"]
    assert planned.returncode in (0, 1), planned.stderr
    assert before == rig.sh(2, look)


_ASK = (
    "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/v1/models',"
    ' timeout=3).status)"'
)


def _quoted(word: str) -> str:
    import shlex  # noqa: PLC0415

    return shlex.quote(word)


def _wheel(folder: Path, name: str, version: str, code: str) -> None:
    """Write a wheel with one module, which its program of the same name runs."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
