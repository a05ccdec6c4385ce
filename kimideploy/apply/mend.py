"""What `doctor --fix` can do: safe, shown first, written down, and undone by `--undo`.

Nothing here resets a GPU or changes MIG, clocks or power limits.
"""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kimideploy.apply.answers import Entry
from kimideploy.apply.events import Change
from kimideploy.apply.files import remove, text, write
from kimideploy.apply.home import UNIT, Home
from kimideploy.apply.journal import Journal, now
from kimideploy.apply.lock import held
from kimideploy.catalog.load import load_catalog
from kimideploy.doctor.types import Remedy
from kimideploy.errors import KimiError, MachineError, RequestError
from kimideploy.facts.types import Strict
from kimideploy.quantities import GIB
from kimideploy.render.files import template

#: the drop-in beside the engine's unit
LIMITS = "90-limits.conf"
_PATIENCE = 60.0
#: the share of the host's memory that /dev/shm never exceeds
_SHARE = 2
_WRITTEN = "# Written by `kimideploy doctor --fix`; `--undo` removes it.\n"


class Mended(Strict, frozen=True):
    """A remedy that was applied, and what was there before; kept until it is undone."""

    remedy: Remedy
    at: float
    who: str
    before: dict[str, str]


class Proposed(Strict, frozen=True):
    """What a remedy would change here; nothing: it has been applied, or is not needed."""

    remedy: Remedy
    changes: tuple[Change, ...] = ()


class Mend(ABC):
    """One remedy. `look` and `before` change nothing; `undo` takes back with what `before` said."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @abstractmethod
    def look(self) -> tuple[Change, ...]:
        """Return what would be changed; raises MachineError for what can't be."""

    @abstractmethod
    def before(self) -> dict[str, str]:
        """Return how it is now, as `undo` needs it."""

    @abstractmethod
    def do(self) -> None:
        """Change it."""

    @abstractmethod
    def undo(self, before: dict[str, str]) -> None:
        """Have it be as it was."""


class NumaBalancing(Mend):
    """kernel.numa_balancing is 0 now, and after the next boot."""

    _KEY = "kernel.numa_balancing"

    @property
    def _now(self) -> Path:
        return self.root / "proc/sys/kernel/numa_balancing"

    @property
    def _file(self) -> Path:
        return self.root / "etc/sysctl.d/90-kimideploy.conf"

    def look(self) -> tuple[Change, ...]:
        """Return the write and the file that are missing."""
        value = text(self._now)
        if value is None:
            raise MachineError("this kernel has no kernel.numa_balancing")
        changes = []
        if value.strip() != "0":
            changes.append(Change(f"set {self._KEY} to 0, which is {value.strip()}"))
        if text(self._file) != self._kept():
            changes.append(Change(f"write {self._file}, so that it stays after a boot"))
        return tuple(changes)

    def before(self) -> dict[str, str]:
        """Return the value, and the file if there is one."""
        return {"value": (text(self._now) or "").strip(), "file": text(self._file) or ""}

    def do(self) -> None:
        """Write both."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write(self._file, self._kept().encode(), mode=0o644)
        self._set("0")

    def undo(self, before: dict[str, str]) -> None:
        """Write the old value, and the file as it was."""
        if before["file"]:
            write(self._file, before["file"].encode(), mode=0o644)
        elif self._file.exists():
            remove(self._file)
        self._set(before["value"])

    def _kept(self) -> str:
        return f"{_WRITTEN}{self._KEY} = 0\n"

    def _set(self, value: str) -> None:
        try:
            self._now.write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            raise MachineError(f"{self._KEY} can't be set: {error.strerror}") from error


class Persistence(Mend):
    """NVIDIA's persistence daemon runs, now and after a boot."""

    _SERVICE = "nvidia-persistenced.service"

    def look(self) -> tuple[Change, ...]:
        """Return that it would be enabled and started."""
        if _shown(self._SERVICE, "LoadState") != "loaded":
            raise MachineError(
                f"{self._SERVICE} is not installed here",
                hint="it comes with the driver: apt install nvidia-persistenced, or what the"
                " distribution calls it",
            )
        if self.before() == {"enabled": "enabled", "active": "active"}:
            return ()
        return (Change(f"systemctl enable --now {self._SERVICE}"),)

    def before(self) -> dict[str, str]:
        """Return whether it is enabled, and active."""
        return {
            "enabled": _shown(self._SERVICE, "UnitFileState"),
            "active": _shown(self._SERVICE, "ActiveState"),
        }

    def do(self) -> None:
        """Enable and start it."""
        _run("systemctl", "enable", "--now", self._SERVICE)

    def undo(self, before: dict[str, str]) -> None:
        """Stop and disable it, if it was so."""
        if before["active"] != "active":
            _run("systemctl", "stop", self._SERVICE)
        if before["enabled"] == "disabled":
            _run("systemctl", "disable", self._SERVICE)


class UnitLimits(Mend):
    """The engine's unit lets it lock memory, open files and start tasks as it must."""

    @property
    def _file(self) -> Path:
        return self.root / f"etc/systemd/system/{UNIT}.d/{LIMITS}"

    def look(self) -> tuple[Change, ...]:
        """Return the drop-in that would be written."""
        if _shown(UNIT, "LoadState") != "loaded":
            raise MachineError(f"no {UNIT} is deployed here")
        if text(self._file) == self._kept():
            return ()
        return (Change(f"write {self._file}; it counts from the engine's next start"),)

    def before(self) -> dict[str, str]:
        """Return the file, if there is one."""
        return {"file": text(self._file) or ""}

    def do(self) -> None:
        """Write it, and have systemd read it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write(self._file, self._kept().encode(), mode=0o644)
        _run("systemctl", "daemon-reload")

    def undo(self, before: dict[str, str]) -> None:
        """Remove it, or write what was there."""
        if before["file"]:
            write(self._file, before["file"].encode(), mode=0o644)
        elif self._file.exists():
            remove(self._file)
        _run("systemctl", "daemon-reload")

    def _kept(self) -> str:
        return f"{_WRITTEN}[Service]\n{template('limits.j2', {})}"


class ShmSize(Mend):
    """/dev/shm may grow to what is wished, or half of the host's memory, until the next boot."""

    @property
    def _shm(self) -> str:
        return str(self.root / "dev/shm")

    def look(self) -> tuple[Change, ...]:
        """Return the mount that would be made."""
        size = self._size()
        if size is None:
            raise MachineError(
                f"{self._shm} is no memory file system of its own here",
                hint="run the container with a larger --shm-size, or --ipc=host",
            )
        if size >= self._wanted():
            return ()
        return (
            Change(
                f"let {self._shm} grow to {self._wanted() / GIB:.1f} GiB instead of"
                f" {size / GIB:.1f}, until the next boot"
            ),
        )

    def before(self) -> dict[str, str]:
        """Return its size."""
        return {"size": str(self._size())}

    def do(self) -> None:
        """Mount it anew, with what is in it."""
        self._mount(self._wanted())

    def undo(self, before: dict[str, str]) -> None:
        """Give it the old size."""
        self._mount(int(before["size"]))

    def _mount(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", self._shm)

    def _size(self) -> int | None:
        for line in (text(Path("/proc/self/mounts")) or "").splitlines():
            words = line.split()
            if len(words) > 2 and words[1] == self._shm and words[2] == "tmpfs":  # noqa: PLR2004
                space = os.statvfs(self._shm)
                return space.f_blocks * space.f_frsize
        return None

    def _wanted(self) -> int:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wished = int(load_catalog(()).thresholds.sizes["shm_wished"].bytes)
        return min(wished, total // _SHARE)


MENDS: dict[Remedy, type[Mend]] = {
    "numa-balancing": NumaBalancing,
    "persistence": Persistence,
    "unit-limits": UnitLimits,
    "shm-size": ShmSize,
}


def proposed(home: Home, remedies: Sequence[Remedy]) -> tuple[Proposed, ...]:
    """Return what each of *remedies* would change on this host."""
    _allowed(home)
    return tuple(Proposed(one, MENDS[one]().look()) for one in remedies)


def mend(home: Home, remedies: Sequence[Remedy], who: str) -> tuple[Proposed, ...]:
    """Return what was changed; each change is in the journal, and can be undone."""
    _allowed(home)
    home.state.mkdir(parents=True, exist_ok=True)
    done = []
    with held(home, who=who, why="doctor --fix"):
        for one in remedies:
            what = MENDS[one]()
            changes = what.look()
            if not changes:
                continue
            applied = mended(home)
            # Why not again: what counts is how it was before us, not before the second time.
            if not any(old.remedy == one for old in applied):
                _keep(home, [*applied, Mended(one, now(), who, what.before())])
            try:
                what.do()
            except KimiError:
                # Why: what can't be done must not stand in the way of --undo and of destroy.
                if not any(old.remedy == one for old in applied):
                    with suppress(KimiError):
                        what.undo(next(m.before for m in mended(home) if m.remedy == one))
                    _keep(home, applied)
                raise
            _note(home, who, f"{one}: {'; '.join(change.what for change in changes)}")
            done.append(Proposed(one, changes))
    return tuple(done)


def mended(home: Home) -> tuple[Mended, ...]:
    """Return what was applied and has not been undone."""
    found = text(home.state / "mended.json")
    try:
        return msgspec.json.decode(found or "[]", type=tuple[Mended, ...])
    except msgspec.DecodeError as error:
        raise MachineError(f"{home.state / 'mended.json'} can't be read: {error}") from error


def undo(home: Home, who: str) -> tuple[Remedy, ...]:
    """Return what was taken back, the last first; RequestError if there is nothing."""
    _allowed(home)
    if not mended(home):
        raise RequestError("`doctor --fix` has changed nothing here that is not undone")
    with held(home, who=who, why="doctor --undo"):
        return take_back(home, who)


def take_back(home: Home, who: str) -> tuple[Remedy, ...]:
    """Return what was taken back; whoever calls it holds the host."""
    undone: list[Remedy] = []
    failed: list[KimiError] = []
    for one in reversed(mended(home)):
        try:
            MENDS[one.remedy]().undo(one.before)
        except KimiError as error:
            _note(home, who, f"{one.remedy}: can't be taken back: {error.message}")
            failed.append(error)
            continue
        _keep(home, [old for old in mended(home) if old.remedy != one.remedy])
        _note(home, who, f"{one.remedy}: as it was before")
        undone.append(one.remedy)
    if failed:
        raise failed[0]
    return tuple(undone)


def _keep(home: Home, applied: Sequence[Mended]) -> None:
    write(home.state / "mended.json", msgspec.json.encode(applied), mode=0o644)


def _note(home: Home, who: str, said: str) -> None:
    Journal(home).add(Entry(at=now(), who=who, action="mend", result="done", said=said))


def _allowed(home: Home) -> None:
    if home.scope != "system":
        raise MachineError(
            "only root may change what the machine is set to", hint="sudo kimideploy doctor --fix"
        )


def _shown(unit: str, name: str) -> str:
    try:
        ended = _run("systemctl", "show", "-p", name, "--value", unit)
    except KimiError:
        return ""
    return ended.stdout.strip()


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        ended = subprocess.run(
            argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{argv[0]} can't be run: {error}") from error
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip() or f"status {ended.returncode}"
        raise MachineError(f"{' '.join(argv)}: {said}")
    return ended
