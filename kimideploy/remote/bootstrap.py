"""kimideploy on a host: its own wheel in a private environment; twice changes nothing."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kimideploy import __version__
from kimideploy.catalog.versions import older
from kimideploy.errors import MachineError
from kimideploy.remote.access import Access
from kimideploy.remote.address import Address
from kimideploy.remote.connect import connect
from kimideploy.remote.shell import Shell
from kimideploy.remote.wheel import Wheel, wheel

Scope = Literal["auto", "system", "user"]
#: what uv and the wheels with compiled code in them ask for (manylinux_2_17)
_GLIBC = (2, 17)
_PYTHON = (3, 10)
_SYSTEM = "/opt/kimideploy"
_USER = ".local/share/kimideploy/programs"
#: One round trip tells all. Why PATH: a Python in somebody's home can't be run by the service.
_LOOK = """\
echo system=$(uname -s)
echo machine=$(uname -m)
echo uid=$(id -u)
echo home=$HOME
echo glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
command -v sudo >/dev/null 2>&1 && echo sudo=$(sudo -n true 2>/dev/null && echo free || echo asks)
[ -d /run/systemd/system ] && echo systemd=yes
for p in /usr/local/bin /usr/bin /bin; do
  for n in python3.12 python3.11 python3.13 python3.10 python3; do
    [ -x $p/$n ] && echo python=$p/$n $($p/$n -c 'import sys; print(*sys.version_info[:2])' 2>&1)
  done
done
for top in /opt/kimideploy "$HOME/.local/share/kimideploy/programs"; do
  [ -e "$top/app/current/whole" ] && echo app=$top $(cat "$top/app/current/whole")
  [ -x "$top/bin/uv" ] && echo uv=$top/bin/uv
done
u=$(PATH=/usr/local/bin:/usr/bin:/bin:$HOME/.local/bin command -v uv) && echo uv=$u
exit 0
"""
_INSTALL = """\
set -eu
top=$1 digest=$2 version=$3 wheel=$4 uv=$5 python=$6; shift 6
app="$top/app/$digest"
rm -rf "$app"
umask 022
mkdir -p "$top/app"
UV_PYTHON_INSTALL_DIR="$top/python" UV_NO_CONFIG=1 "$uv" venv -q --python "$python" "$app"
UV_NO_CONFIG=1 "$uv" pip install -q --python "$app/bin/python" "$@" "$wheel"
"$app/bin/kimideploy" --version >/dev/null
echo "$digest $version" > "$app/whole.part"
mv "$app/whole.part" "$app/whole"
ln -s "$digest" "$top/app/.current.$$"
mv -T "$top/app/.current.$$" "$top/app/current"
rm -f "$wheel"
ls -1t "$top/app" | grep -v '^current$' | tail -n +4 | while read old; do
  rm -rf "$top/app/$old"
done
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at a host showed."""

    said: dict[str, list[str]]

    def one(self, name: str) -> str:
        """Return the first value of *name*, nothing if there is none."""
        return next(iter(self.said.get(name, ())), "")

    def app(self, top: str) -> tuple[str, str]:
        """Return digest and version of the kimideploy below *top*, nothing if there is none."""
        for line in self.said.get("app", ()):
            words = line.split(" ")
            if words[0] == top and len(words) == 3:  # noqa: PLR2004
                return words[1], words[2]
        return "", ""

    @property
    def python(self) -> str | None:
        """A Python that every user of the host can run, and that is new enough."""
        for line in self.said.get("python", ()):
            words = line.split(" ")
            version = tuple(int(word) for word in words[1:] if word.isdecimal())
            if len(version) == 2 and version >= _PYTHON:  # noqa: PLR2004
                return words[0]
        return None


@dataclass(frozen=True, slots=True)
class Reached:
    """A host with kimideploy on it, as root or as whoever logs in."""

    shell: Shell
    program: str
    top: str
    scope: Literal["system", "user"]
    is_ready: bool = True

    @property
    def settings(self) -> str:
        """Where the host keeps secrets and its own settings."""
        if self.scope == "system":
            return "/etc/kimideploy"
        home = self.top.removesuffix("/.local/share/kimideploy/programs")
        return f"{home}/.config/kimideploy"

    @property
    def models(self) -> str:
        """Where the host keeps weights."""
        return f"{self.incoming.removesuffix('incoming')}models"

    @property
    def incoming(self) -> str:
        """Where bundles are sent to."""
        if self.scope == "system":
            return "/var/lib/kimideploy/incoming"
        return f"{self.top.removesuffix('/programs')}/incoming"


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Where a host gets packages from: an index, or wheels of this machine that it is sent."""

    index: str | None = None
    wheels: Path | None = None


def reach(
    address: Address,
    access: Access,
    supply: Supply,
    *,
    scope: Scope = "auto",
    note: Callable[[str], None] = lambda _: None,
    install: bool = True,
) -> Reached:
    """Return *address* connected, with this very kimideploy on it; raises MachineError.

    Without *install* the host stays as it is, and `is_ready` says whether it can be asked.
    """
    shell = Shell(address, connect(address, access))
    try:
        seen = look(shell)
        shell, which = _scope(shell, seen, scope, access)
        top = _SYSTEM if which == "system" else f"{seen.one('home')}/{_USER}"
        mine = wheel()
        digest, version = seen.app(top)
        if digest != mine.digest:
            _refuse_older(address, version)
            if install:
                note(f"{address}: installing kimideploy {__version__} in {top}")
                _install(shell, seen, top, mine, supply)
    except BaseException:
        shell.transport.close()
        raise
    is_ready = install or digest == mine.digest
    return Reached(shell, f"{top}/app/current/bin/kimideploy", top, which, is_ready=is_ready)


def _refuse_older(address: Address, version: str) -> None:
    if version and older(__version__, version):
        raise MachineError(
            f"{address} has kimideploy {version}, which is newer than this one, {__version__}",
            hint="update it here: uv tool upgrade kimideploy",
        )


def look(shell: Shell) -> Seen:
    """Return what the host is, in one round trip; MachineError for one that can't be served."""
    ended = shell.script(_LOOK, plain=True)
    said: dict[str, list[str]] = {}
    for line in ended.out.decode("utf-8", "replace").splitlines():
        name, mark, value = line.partition("=")
        if mark:
            said.setdefault(name, []).append(value.strip())
    seen = Seen(said)
    if ended.status != 0 or not seen.one("system"):
        raise MachineError(f"{shell.address} runs no shell that can be used: {ended.said}")
    if seen.one("system") != "Linux":
        raise MachineError(f"{shell.address} runs {seen.one('system')}, and engines need Linux")
    glibc = tuple(int(part) for part in seen.one("glibc").split(".") if part.isdecimal())
    if glibc and glibc < _GLIBC:
        raise MachineError(
            f"{shell.address} has glibc {seen.one('glibc')}, and the packages need"
            f" {'.'.join(map(str, _GLIBC))}",
            hint="a newer distribution",
        )
    return seen


def _scope(
    shell: Shell, seen: Seen, scope: Scope, access: Access
) -> tuple[Shell, Literal["system", "user"]]:
    if scope == "user":
        if seen.one("uid") == "0":
            raise MachineError(f"root has no services of a user on {shell.address}")
        return shell, "user"
    if seen.one("uid") == "0":
        return shell, "system"
    if scope == "auto" and not seen.one("sudo"):
        return shell, "user"
    return shell.as_root(access), "system"


def _install(shell: Shell, seen: Seen, top: str, mine: Wheel, supply: Supply) -> None:
    uv = seen.one("uv") or _send_uv(shell, seen, top)
    where = f"{top}/app/{mine.name}"
    shell.put(mine.data, where)
    reach = ["--index-url", supply.index] if supply.index is not None else []
    if supply.wheels is not None:
        reach = ["--no-index", "--find-links", send_wheels(shell, supply.wheels, top)]
    python = seen.python or "3.12"
    ended = shell.script(_INSTALL, top, mine.digest, __version__, where, uv, python, *reach)
    if ended.status != 0:
        raise MachineError(
            f"{shell.address}: kimideploy can't be installed: {_why(ended.err)}",
            hint="--wheelhouse FOLDER sends the packages along; `kimideploy weights bundle"
            " --wheelhouse` collects them"
            if supply.wheels is None
            else "the wheels must be for the host's Python and architecture",
        )


def send_wheels(shell: Shell, folder: Path, top: str) -> str:
    """Return where the wheels of *folder* lie on the host; those that are there are not sent."""
    there = f"{top}/wheels"
    here = {path.name: path for path in sorted(folder.glob("*.whl"))}
    listed = shell.script('mkdir -p "$1" && cd "$1" && stat -c "%s %n" *.whl 2>/dev/null', there)
    known = set(listed.out.decode("utf-8", "replace").splitlines())
    for name, path in here.items():
        if f"{path.stat().st_size} {name}" not in known:
            shell.put(path, f"{there}/{name}")
    return there


def _send_uv(shell: Shell, seen: Seen, top: str) -> str:
    """Return where uv lies on the host after this machine's own was sent."""
    if (seen.one("system"), seen.one("machine")) != (platform.system(), platform.machine()):
        raise MachineError(
            f"{shell.address} has no uv, and this machine's is for"
            f" {platform.system()} {platform.machine()}",
            hint="install uv on the host: pip install uv",
        )
    found = _own_uv()
    if found is None:
        raise MachineError("there is no uv here to send", hint="pip install uv")
    where = f"{top}/bin/uv"
    shell.put(found, where, mode=0o755)
    return where


def _own_uv() -> Path | None:
    beside = Path(sys.executable).parent / "uv"
    if beside.is_file():
        return beside.resolve()
    found = shutil.which("uv")
    return Path(found).resolve() if found is not None else None


def _why(err: bytes) -> str:
    lines = [line.strip(" ×╰─▶│") for line in err.decode("utf-8", "replace").splitlines()]
    said = [line for line in lines if line]
    return " ".join(said[:3]) or "no reason was given"
