"""How fast a converged host is found so, and files are sent, beside pyinfra and rsync in one run.

    python -m bench.remote [--size 2GiB] [--runs 3]

Needs root, and pyinfra in an environment of its own (--pyinfra BIN, made where it is missing). The
hosts are those of the tests. Goals: converged in 2 s after the connection, a push at 1.0 of rsync.
The exit code is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kimideploy.quantities import parse_bytes
from kimideploy.remote.address import parse
from kimideploy.remote.bulk import push
from kimideploy.remote.connect import connect
from kimideploy.remote.shell import Shell
from tests.hosts.rig import ENGINE, Rig, down, up

_GOAL, _PUSH = 2.0, 1.0
_DEPLOY = """\
from pyinfra.operations import files, systemd
files.put(src="{unit}", dest="/etc/systemd/system/kimideploy.service")
for n in range(10):
    files.file(path=f"/etc/bench-{{n}}", present=True)
systemd.service(service="kimideploy.service", running=True, enabled=True)
"""


def best(runs: int, work: Callable[[], object]) -> float:
    """Return the least seconds of *runs*."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def converged(rig: Rig, plan: Path, count: int) -> None:
    """Have *count* hosts asked for what they are already."""
    hosts = [rig.name(number) for number in range(1, count + 1)]
    ended = rig.run("serve", "--plan", str(plan), "--venv", ENGINE, host=hosts)
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)


def pyinfra(program: str, rig: Rig, deploy: Path) -> None:
    """Have pyinfra look at the same unit and ten files."""
    words = [program, "-y", "--ssh-user", "root", "--ssh-key", str(rig.key)]
    words += ["--data", f"ssh_known_hosts_file={rig.known}", rig.ip(1), str(deploy)]
    subprocess.run(words, check=True, capture_output=True)


def sent(rig: Rig, folder: Path, runs: int) -> tuple[float, float]:
    """Return the seconds of our push and of one rsync over the same ssh."""
    shell = Shell(parse(rig.name(1)), connect(parse(rig.name(1)), rig.access()))
    files = [str(path) for path in sorted(folder.iterdir())]

    def ours() -> None:
        shell.script("rm -rf /srv/bench")
        push(shell, rig.access(), folder, "/srv/bench", lambda *_: None)

    def theirs() -> None:
        shell.script("rm -rf /srv/bench; mkdir /srv/bench")
        ssh = f"ssh -F {rig.config} -l root"
        words = ["rsync", "-a", "--inplace", "--whole-file", "-e", ssh, *files]
        subprocess.run([*words, f"{rig.ip(1)}:/srv/bench/"], check=True)

    times = best(runs, ours), best(runs, theirs)
    shell.script("rm -rf /srv/bench")
    shell.transport.close()
    return times


def made(folder: Path, size: int, count: int = 4) -> Path:
    """Return *folder* with *count* files of *size* bytes in all."""
    for number in range(count):
        with (folder / f"volume-{number}").open("wb") as file:
            for _ in range(size // count >> 20):
                file.write(os.urandom(1 << 20))
    return folder


def main() -> None:
    """Measure, and print the ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=parse_bytes, default=2 << 30)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--pyinfra", default=None)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        program = asked.pyinfra
        if program is None:
            subprocess.run([sys.executable, "-m", "venv", str(top / "py")], check=True)
            subprocess.run([str(top / "py/bin/pip"), "install", "-q", "pyinfra"], check=True)
            program = str(top / "py/bin/pyinfra")
        (top / "rig").mkdir()
        (top / "plans").mkdir()
        (top / "files").mkdir()
        rig = up(4, top / "rig")
        try:
            measured(rig, top, program, asked)
        finally:
            down(rig)


def measured(rig: Rig, top: Path, program: str, asked: argparse.Namespace) -> None:
    """Measure on hosts that are up."""
    for number in range(1, 5):
        rig.furnish(number)
    plan = rig.plan(top / "plans")
    converged(rig, plan, 4)
    unit = top / "kimideploy.service"
    unit.write_text(rig.sh(1, "cat /etc/systemd/system/kimideploy.service"), encoding="utf-8")
    deploy = top / "deploy.py"
    deploy.write_text(_DEPLOY.format(unit=unit), encoding="utf-8")
    pyinfra(program, rig, deploy)
    one = best(asked.runs, lambda: converged(rig, plan, 1))
    four = best(asked.runs, lambda: converged(rig, plan, 4))
    other = best(asked.runs, lambda: pyinfra(program, rig, deploy))
    address = parse(rig.name(1))
    reach = best(asked.runs, lambda: connect(address, rig.access()).close())
    print(f"converged, 1 host   {one:6.2f} s   pyinfra {other:6.2f} s   ratio {one / other:.2f}")
    print(f"converged, 4 hosts  {four:6.2f} s   ratio to 1 host {four / one:.2f}")
    print(f"after the connection {one - reach:5.2f} s   goal {_GOAL:.1f} s")
    ours, theirs = sent(rig, made(top / "files", asked.size), asked.runs)
    rate = asked.size / 1e6
    print(f"push {rate / ours:.0f} MB/s   rsync {rate / theirs:.0f} MB/s   {theirs / ours:.2f}")
    if one - reach > _GOAL or theirs / ours < _PUSH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
