"""The rig: hosts that boot in a moment, links that can be cut, and the command line aimed at them.

Needs root. Host I is 10.177.77.(10+I), this machine 10.177.77.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kimideploy.engines import complete
from kimideploy.planning.types import Plan, encode
from kimideploy.remote.access import Access
from tests import nvml
from tests.flows import place
from tests.flows.standalone import source
from tests.unit.engines.plans import CATALOG, plan

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("hosts.sh")
NEEDED = ("sshd", "ip", "unshare", "sudo", "rsync", "systemd-run", "nft", "tcsh")
#: where a host's engine that misbehaves on demand lies, and its weights
ENGINE, WEIGHTS = "/opt/engine", "/srv/models/kimi"


def missing() -> list[str]:
    """Return what this machine lacks to be a rig."""
    lacking = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    return lacking if os.geteuid() == 0 else ["root", *lacking]


@dataclass
class Rig:
    """Hosts 1 to *count*, up."""

    folder: Path
    key: Path
    wheels: Path
    count: int
    known: Path = field(init=False)
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        """Write an SSH configuration that knows the hosts and nothing of this machine's user."""
        self.known = self.key.with_name("known_hosts")
        self.config = self.key.with_name("config")
        self.config.write_text(
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known}\n  GlobalKnownHostsFile /dev/null\n",
            encoding="utf-8",
        )
        self.learn()

    # --- hosts ---------------------------------------------------------------------------

    def ip(self, number: int) -> str:
        """Return the address of a host."""
        return f"10.177.77.{10 + number}"

    def name(self, number: int, user: str = "root") -> str:
        """Return what --host is given."""
        return f"{user}@{self.ip(number)}"

    def learn(self) -> None:
        """Have the keys of all hosts in known_hosts."""
        lines = [f"{self.ip(n)} {self.public_key(n)}\n" for n in range(1, self.count + 1)]
        self.known.write_text("".join(lines), encoding="utf-8")

    def public_key(self, number: int) -> str:
        """Return the host's public key as known_hosts has it."""
        text = self.file(number, "etc/kdssh/host_ed25519.pub").read_text(encoding="utf-8")
        return " ".join(text.split()[:2])

    def file(self, number: int, path: str) -> Path:
        """Return a file of a host that was written there; it must not be in /run or /tmp."""
        return self.folder / f"h{number}" / "fs" / "upper" / path.lstrip("/")

    def sh(self, number: int, script: str, *, check: bool = True, user: str = "root") -> str:
        """Return what a shell script printed on a host, without SSH."""
        init = (self.folder / f"h{number}" / "init").read_text(encoding="ascii").strip()
        env = {"PATH": _path(), "LC_ALL": "C.UTF-8", "HOME": "/root", "SYSTEMD_COLORS": "0"}
        words = ["nsenter", "-t", init, "-a", "--", "/bin/sh", "-c", script]
        if user != "root":
            words = [*words[:5], "runuser", "-u", user, "--", "/bin/sh", "-c", script]
        ended = subprocess.run(
            words, capture_output=True, text=True, check=False, env=env, errors="replace",
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        if check and ended.returncode != 0:
            raise AssertionError(f"{script}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def kill(self, number: int) -> None:
        """Take the power away."""
        _script("kill", str(number), str(self.folder))
        wait_for(lambda: not self._is_up(number), 10)

    def boot(self, number: int) -> None:
        """Give it back, and return when the host can be reached."""
        _script("start", str(number), str(self.folder))
        self.wait(number)

    def wait(self, number: int) -> None:
        """Return when sshd and systemd are up."""
        wait_for(
            lambda: "active" in self.sh(
                number, "systemctl is-active kdsshd multi-user.target", check=False
            ).split()[:1],
            30,
        )  # fmt: skip

    @contextmanager
    def cut(self, number: int) -> Iterator[None]:
        """Have the host's link down."""
        subprocess.run(["ip", "link", "set", f"kdv{number}", "down"], check=True)
        try:
            yield
        finally:
            self.mend(number)

    def mend(self, number: int) -> None:
        """Have the host's link up."""
        subprocess.run(["ip", "link", "set", f"kdv{number}", "up"], check=True)

    def show(self, number: int, *names: str, unit: str = "kimideploy") -> dict[str, str]:
        """Return properties of a unit."""
        lines = self.sh(number, f"systemctl show {unit} -p {','.join(names)}").splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def clean(self, number: int) -> None:
        """Have nothing deployed on a host; kimideploy itself stays."""
        self.sh(
            number,
            "systemctl stop 'kimideploy-run-*' kimideploy-deadman.timer kimideploy-deadman"
            " kimideploy 2>/dev/null; systemctl reset-failed 2>/dev/null;"
            " rm -rf /var/lib/kimideploy /etc/kimideploy /etc/systemd/system/kimideploy*"
            " /etc/systemd/system/*.wants/kimideploy* /run/kimideploy /opt/kimideploy/engines;"
            " systemctl daemon-reload; true",
        )

    # --- the command line ----------------------------------------------------------------

    def access(self, **more: Any) -> Access:
        """Return how the hosts are reached."""
        return Access(config=self.config, silence=6, **more)

    def words(self, command: Sequence[str], *hosts: str) -> list[str]:
        """Return the argv of a command for hosts."""
        named = [word for host in hosts for word in ("--host", host)]
        reach = ["--ssh-config", str(self.config)]
        if command[0] != "inspect" and "--wheelhouse" not in command:
            reach += ["--wheelhouse", str(self.wheels)]
        if command[0] == "serve":
            # Why: no host of ours has room for the weights of a plan; theirs are small.
            reach += ["--skip-check", "disk-weights"]
        return [sys.executable, "-m", "kimideploy", *command, *named, *reach]

    def run(
        self, *command: str, host: str | Sequence[str] = (), timeout: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Return how a command for hosts ended."""
        hosts = [host] if isinstance(host, str) else list(host)
        return subprocess.run(
            self.words(command, *(hosts or [self.name(1)])),
            capture_output=True, text=True, check=False, timeout=timeout, env=_env(env),
            cwd=self.key.parent, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def begin(self, *command: str, host: str | Sequence[str] = ()) -> subprocess.Popen[str]:
        """Return a command for hosts that has begun."""
        hosts = [host] if isinstance(host, str) else list(host)
        return subprocess.Popen(
            self.words(command, *(hosts or [self.name(1)])),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_env({}),
            cwd=self.key.parent, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def status(self, number: int) -> Any:
        """Return what `status --json` says of a host."""
        ended = self.run("status", "--json", host=self.name(number))
        if ended.returncode not in (0, 1):
            seen = self.sh(number, "journalctl -b -n 80 --no-pager; ps -eo pid,stat,wchan,args")
            raise AssertionError(f"{ended.stderr}\n{seen}")
        return json.loads(ended.stdout)[self.name(number)]

    # --- an engine that misbehaves on demand ----------------------------------------------

    def furnish(self, number: int) -> None:
        """Have eight H200 in the host as far as the driver's library tells, an engine, weights."""
        self.sh(number, f"mkdir -p {ENGINE}/bin {ENGINE}/lib {WEIGHTS}")
        self._write(number, f"{ENGINE}/engine.py", source())
        self._write(
            number,
            f"{ENGINE}/bin/vllm",
            f'#!/bin/sh\ncase "$*" in *--seed=7*) TEST_ENGINE=$(cat {ENGINE}/mode);; esac\n'
            f'export TEST_ENGINE="${{TEST_ENGINE:-fine}}"\n'
            f'exec /usr/bin/env python3 {ENGINE}/engine.py "$@"\n',
        )
        info = f"{ENGINE}/lib/python3.11/site-packages/vllm-{place.VERSION}.dist-info"
        self.sh(number, f"chmod 755 {ENGINE}/bin/vllm; mkdir -p {info}")
        self._write(number, f"{info}/METADATA", f"Name: vllm\nVersion: {place.VERSION}\n\n")
        self._write(number, f"{ENGINE}/pyvenv.cfg", "")
        with tempfile.TemporaryDirectory() as folder:
            for path in place.weights(Path(folder) / "w").iterdir():
                self._write(number, f"{WEIGHTS}/{path.name}", path.read_bytes())
            library = nvml.build(Path(folder))
            target = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
            self._write(number, target, (library / "libnvidia-ml.so.1").read_bytes())
        self.mode(number, "fine")
        self.gpus(number, "count 8\nname NVIDIA H200\nmem_total_mib 143771\nmem_used_mib 4\n")
        self.sh(number, "ldconfig")

    def gpus(self, number: int, facts: str) -> None:
        """Have the driver of a host tell *facts*."""
        head = "driver 580.65.06\ncuda 13000\n"
        self._write(number, "/etc/fake-nvml.conf", head + facts)

    def mode(self, number: int, how: str) -> None:
        """Have the engine of a host behave so where a plan has the word --seed=7 for it."""
        self._write(number, f"{ENGINE}/mode", how)

    def other(self, folder: Path, **request: Any) -> Path:
        """Return the file of a plan whose engine behaves as `mode` says."""
        return self.plan(folder, engine_args=("--seed=7",), **request)

    def plan(self, folder: Path, **request: Any) -> Path:
        """Return the file of a plan on the host's own weights."""
        asked = {"model_path": WEIGHTS, "port": 8123} | request
        path = folder / f"plan-{len(list(folder.iterdir()))}.json"
        made: Plan = complete(plan(**asked), CATALOG)  # type: ignore[arg-type]
        path.write_bytes(encode(made))
        return path

    def _write(self, number: int, path: str, data: str | bytes) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        init = (self.folder / f"h{number}" / "init").read_text(encoding="ascii").strip()
        line = f"umask 022; cat > {shlex.quote(path)}"
        subprocess.run(
            ["nsenter", "-t", init, "-a", "--", "/bin/sh", "-c", line], input=raw, check=True
        )

    def _is_up(self, number: int) -> bool:
        pid = int((self.folder / f"h{number}" / "init").read_text(encoding="ascii") or 0)
        return place.is_alive(pid)


def up(count: int, folder: Path) -> Rig:
    """Return *count* hosts, booted."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True
    )
    top = folder / "hosts"
    top.mkdir()
    shutil.copy(folder / "id.pub", top / "id.pub")
    _script("up", str(count), str(top))
    for number in range(1, count + 1):
        wait_for((top / f"h{number}" / "fs/upper/etc/kdssh/host_ed25519.pub").exists, 20)
    rig = Rig(top, folder / "id", wheelhouse(), count)
    for number in range(1, count + 1):
        rig.wait(number)
    return rig


def down(rig: Rig) -> None:
    """Have no host."""
    _script("down", str(rig.folder))


def wheelhouse() -> Path:
    """Return the folder with the wheels that a host without an index needs; kept between runs."""
    lock = (ROOT / "requirements-dev.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    name = f"wheelhouse-{hashlib.sha256(lock).hexdigest()[:12]}-{sys.version_info[1]}"
    folder = Path("~/.cache/kimideploy").expanduser() / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent))
        words = [sys.executable, "-m", "pip", "wheel", "-q", "-w", str(draft), str(ROOT)]
        subprocess.run([*words, "-c", str(ROOT / "requirements-dev.lock")], check=True)
        for own in draft.glob("kimideploy-*.whl"):
            own.unlink()
        draft.replace(folder)
    return folder


def wait_for(ready: Callable[[], Any], seconds: float) -> None:
    """Return when *ready* is true; AssertionError after *seconds*."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {ready}")
        time.sleep(0.05)


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
    """Have a begun command, and all it started, be gone."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    process.communicate(timeout=20)


def _script(*words: str) -> None:
    subprocess.run([str(SCRIPT), *words], check=True, env={"PATH": _path()}, timeout=60)


def _env(more: dict[str, str]) -> dict[str, str]:
    gone = ("SSH_AUTH_SOCK", "HF_ENDPOINT")
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT), **more}


def _path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
