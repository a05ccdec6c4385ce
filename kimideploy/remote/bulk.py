"""Large files to a host: rsync over the system's ssh, several streams, and it goes on when cut."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kimideploy.errors import MachineError, WeightsError
from kimideploy.remote.access import Access
from kimideploy.remote.shell import Shell

#: one stream is bound by one core's cipher; more than these were no faster on any line we measured
_STREAMS = 3
#: tries of a stream that breaks, each goes on where the last one was
_TRIES = 5
_BYTES = re.compile(rb"^\s*([0-9][0-9,.]*)\s+[0-9]+%", re.MULTILINE)
#: bytes sent and bytes in all
Watch = Callable[[int, int], None]


def push(shell: Shell, access: Access, folder: Path, where: str, watch: Watch) -> None:
    """Have every file of *folder* in *where* on the host; what is there already is not sent again.

    Raises WeightsError if a file can't be sent. What arrives is not proved here: whoever reads it
    checks its hashes.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        raise WeightsError(f"{folder} holds no files to send")
    shell.check(["mkdir", "-p", where])
    if shutil.which("rsync") and shutil.which("ssh") and _has_rsync(shell):
        _by_rsync(shell, access, files, where, watch)
    else:
        _one_by_one(shell, files, where, watch)


def _has_rsync(shell: Shell) -> bool:
    # Why: a password of sudo can't be given to the rsync over there.
    return shell.sudo != "asked" and shell.run(["sh", "-c", "command -v rsync"]).status == 0


def _by_rsync(
    shell: Shell, access: Access, files: Sequence[Path], where: str, watch: Watch
) -> None:
    total = sum(path.stat().st_size for path in files)
    sent: dict[int, int] = {}
    lock = threading.Lock()
    streams = _streams(files)

    def stream(number: int) -> None:
        def moved(size: int) -> None:
            with lock:
                sent[number] = size
                watch(min(total, sum(sent.values())), total)

        _stream(_words(shell, access, streams[number], where), moved, str(shell.address), over)

    over = threading.Event()
    with ThreadPoolExecutor(max_workers=len(streams)) as pool:
        try:
            list(pool.map(stream, range(len(streams))))
        finally:
            # Why: Ctrl-C ends each rsync, and none is to be started again.
            over.set()
    watch(total, total)


def _streams(files: Sequence[Path]) -> list[list[Path]]:
    """Divide *files* into streams of about the same size."""
    found: list[tuple[int, list[Path]]] = [(0, []) for _ in range(min(_STREAMS, len(files)))]
    for path in sorted(files, key=lambda one: -one.stat().st_size):
        size, least = min(found, key=lambda one: one[0])
        found.remove((size, least))
        found.append((size + path.stat().st_size, [*least, path]))
    return [paths for _, paths in found]


def _words(shell: Shell, access: Access, files: Sequence[Path], where: str) -> list[str]:
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
           "-o", "Ciphers=^aes128-gcm@openssh.com", "-o", "Compression=no",
           "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]  # fmt: skip
    ssh += ["-F", str(access.config)] if access.config is not None else []
    address = shell.address
    ssh += ["-l", address.user] if address.user is not None else []
    ssh += ["-p", str(address.port)] if address.port is not None else []
    words = ["rsync", "--times", "--inplace", "--partial", "--whole-file", "--no-compress",
             "--info=progress2", "--timeout=30", "--protect-args",
             "--rsh", shlex.join(ssh)]  # fmt: skip
    if shell.sudo == "free":
        words += ["--rsync-path", "sudo -n rsync"]
    host = f"[{address.host}]" if ":" in address.host else address.host
    return [*words, "--", *(str(path) for path in files), f"{host}:{where}/"]


def _stream(
    words: list[str], moved: Callable[[int], None], who: str, over: threading.Event
) -> None:
    """Return when one stream is through; raises WeightsError, or nothing where it is *over*."""
    said = b""
    for attempt in range(_TRIES):
        if attempt and over.wait(2**attempt):
            return
        # Why --append-verify after a break: what has come is checked and not sent again.
        again = ["--append-verify"] if attempt else []
        now = [words[0], *again, *(w for w in words[1:] if not (again and w == "--whole-file"))]
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                now, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            ) as child:
                if child.stdout is None:
                    raise AssertionError(child)
                while data := os.read(child.stdout.fileno(), 1 << 16):
                    found = _BYTES.findall(data.replace(b"\r", b"\n"))
                    if found:
                        moved(int(re.sub(rb"[,.]", b"", found[-1])))
            errors.seek(0)
            said = errors.read()[-4096:]
        if child.returncode == 0 or over.is_set():
            return
    last = (said.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"])[-1]
    raise WeightsError(
        f"{who}: rsync broke off {_TRIES} times: {last}", hint="the same command goes on from there"
    )


def _one_by_one(shell: Shell, files: Sequence[Path], where: str, watch: Watch) -> None:
    """Without an rsync: each file whole; those of the right size are there."""
    total = sum(path.stat().st_size for path in files)
    done = 0
    for path in files:
        size = path.stat().st_size
        there = f"{where}/{path.name}"
        found = shell.run(["stat", "-c", "%s", there])
        if found.status != 0 or found.out.strip() != str(size).encode():
            try:
                shell.put(path, there)
            except MachineError as error:
                raise WeightsError(error.message, hint=error.hint) from error
        done += size
        watch(done, total)
