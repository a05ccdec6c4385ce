"""Who listens on a port, as far as this user may know."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"  # include/net/tcp_states.h


def holder(port: int) -> str | None:
    """Return "PROGRAM (pid N)" for what listens on *port*; None if it can't be told."""
    return next((program(pid) for pid in sorted(holders(port))), None)


def holders(port: int) -> frozenset[int]:
    """Return the pids of what listens on *port*; none where that can't be told."""
    sockets = _sockets(port)
    if not sockets:
        return frozenset()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return frozenset(pid for pid in pids if _held(pid) & sockets)


def _held(pid: int) -> set[str]:
    """Return what the open files of a process lead to, nothing where we may not look."""
    held: set[str] = set()
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed in the meantime
                held.add(str(path.readlink()))
    return held


def _sockets(port: int) -> set[str]:
    """Return the names that /proc/PID/fd gives to sockets listening on *port*."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            words = row.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{words[9]}]")
    return found


def program(pid: int) -> str:
    """The program's short name and pid; its arguments may hold what is nobody's business."""
    try:
        text = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        text = "a program"
    return f"{''.join(sign if sign.isprintable() else '?' for sign in text)} (pid {pid})"
