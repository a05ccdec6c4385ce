"""A process with everything it starts: begun in its own session, ended to the last child.

Engines leave workers behind, in sessions of their own, that hold the GPUs when the server is
killed (https://github.com/vllm-project/vllm/issues/55510). On Linux this process therefore
becomes the one that orphans fall to, and ends every descendant; elsewhere it ends the group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kimideploy.apply.clock import Clock
from kimideploy.errors import MachineError

#: seconds for an engine to end by itself, for its workers after it, and for the kernel to kill
GRACE, AFTER, KILL = 20.0, 5.0, 10.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_TICK = 0.05


class Process:
    """A started program. `status` is what `Popen.poll` says; `end` leaves nothing behind."""

    def __init__(self, child: subprocess.Popen[bytes], others: frozenset[int]) -> None:
        self._child = child
        self._others = others
        self.pid = child.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the program runs."""
        return self._child.poll()

    def alive(self) -> tuple[int, ...]:
        """Return the pids of the program and of all it started, wherever they have gone to."""
        self._child.poll()
        if not _has_proc():
            return _group(self.pid)
        children, dead = _family()
        found: list[int] = []
        pending = [pid for pid in children.get(os.getpid(), []) if pid not in self._others]
        while pending:
            pid = pending.pop()
            pending += children.get(pid, [])
            if pid not in dead:
                found.append(pid)
            elif pid != self.pid:
                _reap(pid)
        return tuple(sorted(found))

    def end(
        self, clock: Clock, *, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ask the program to end, then its workers, then kill; return who was killed and is left.

        It is asked once and given `grace` seconds; `hurry` true skips the waiting.
        """
        if self.status is None:
            _send([self.pid], signal.SIGTERM)
            _wait(lambda: self.status is not None, grace, clock, hurry)
        _send(self.alive(), signal.SIGTERM)
        _wait(lambda: not self.alive(), AFTER, clock, hurry)
        killed = self.alive()
        until = clock.now() + KILL
        while (left := self.alive()) and clock.now() < until:
            _send(left, signal.SIGKILL)
            clock.sleep(_TICK)
        self._child.poll()
        return killed, left


def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Return *argv* running in a session of its own, its output appended to *log* (mode 0600).

    Raises MachineError if it can't be started. What this process starts later counts as the
    program's: start nothing else while it runs.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MachineError(f"the log {log} can't be written: {error.strerror}") from error
    return start_into(argv, env, output)


def start_into(argv: Sequence[str], env: Mapping[str, str], output: int) -> Process:
    """As `start`, with what it writes going to the descriptor *output*, which is closed here."""
    if sys.platform == "win32":
        raise MachineError(
            "serving needs Linux: Windows can't end all that an engine starts",
            hint="`kimideploy render shell` writes the command to run on the GPU machine",
        )
    _adopt_orphans()
    others = frozenset(_family()[0].get(os.getpid(), [])) if _has_proc() else frozenset()
    try:
        child = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"{argv[0]} can't be started: {error.strerror}") from error
    finally:
        os.close(output)
    return Process(child, others)


def _adopt_orphans() -> None:
    """Have processes whose parent died fall to this one instead of to PID 1; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _has_proc() -> bool:
    return sys.platform == "linux"


def _family() -> tuple[dict[int, list[int]], set[int]]:
    """Return parent → children of the whole machine, and who is dead but not yet waited for."""
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            # Why the last ")": a program may have any name, brackets and blanks included.
            stat = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        pid = int(entry.name)
        children.setdefault(int(stat[1]), []).append(pid)
        if stat[0] in (b"Z", b"X"):
            dead.add(pid)
    return children, dead


def _group(pid: int) -> tuple[int, ...]:
    try:
        os.killpg(pid, 0)
    except OSError:
        return ()
    return (-pid,)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each that is still there; a negative pid is a group."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(
    done: Callable[[], bool], seconds: float, clock: Clock, hurry: Callable[[], bool]
) -> None:
    until = clock.now() + seconds
    while not done() and clock.now() < until and not hurry():
        clock.sleep(_TICK)
