"""What every source of the probe needs: reading, running, and saying why a fact is not there."""

import os
import platform
import re
import shutil
import signal
import subprocess
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

MIB = 1 << 20
Facts = Dict[str, Any]


class Unknown:
    """The facts one source could not have, with reasons."""

    def __init__(self) -> None:
        self.entries: List[Dict[str, str]] = []

    def add(self, what: str, reason: object) -> None:
        self.entries.append({"what": what, "reason": str(reason)})


def start(source: Callable[[Unknown], Facts]) -> Tuple[threading.Thread, Dict[str, Any]]:
    outcome = {}  # type: Dict[str, Any]

    def work() -> None:
        unknown = Unknown()
        try:
            facts = source(unknown)
        except Exception as error:
            outcome["error"] = said(error)
        else:
            outcome["unknown"] = unknown.entries
            outcome["facts"] = facts

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, outcome


def clean(value: Any) -> Any:
    """Return *value* with only text that is valid UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    return "%s: %s" % (type(error).__name__, error) if str(error) else type(error).__name__


def under(root: str, path: str) -> str:
    return root.rstrip("/") + path


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def read_or(path: str, default: str = "") -> str:
    """Return the file's text, or *default* where the kernel does not offer it."""
    try:
        return read(path)
    except OSError:
        return default


def number(text: Optional[str]) -> Optional[int]:
    """Return the integer that *text* is, None for anything else."""
    try:
        return int((text or "").strip())
    except ValueError:
        return None


def find_program(name: str, *also: str) -> Optional[str]:
    """Return the program in PATH, or in one of the folders *also*."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(also))


def run(argv: Sequence[str], seconds: float) -> Tuple[int, str]:
    """Return exit status and output, both streams together.

    Raises TimeoutError after *seconds*, when the program and its children have been killed.
    """
    grouped = hasattr(os, "killpg")
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=grouped,
        env=dict(os.environ, LC_ALL="C"),
    )
    try:
        output = process.communicate(timeout=max(0.1, seconds))[0]
    except subprocess.TimeoutExpired:
        if grouped:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        try:
            process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            pass  # Why: a process stuck in the driver can't be killed, nor waited for
        name = os.path.basename(argv[0])
        raise TimeoutError("%s did not answer within %g s" % (name, round(seconds, 1)))
    return process.returncode, output.decode("utf-8", "replace")


def needs_linux(what: str) -> str:
    return "needs Linux's %s (this is %s)" % (what, platform.system() or "another system")


def unescape(word: str) -> str:
    """Return a mount's path as it is; the kernel writes blanks as octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)
