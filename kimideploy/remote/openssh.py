"""A connection by the system's ssh: one master, and a program for each command through it.

It honours all of the user's configuration: FIDO keys, certificates of hosts, ProxyCommand.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kimideploy.errors import BusyError, MachineError
from kimideploy.remote.access import Access, may_record, refused
from kimideploy.remote.address import Address, parse
from kimideploy.remote.known_hosts import fingerprint, judge, lines, record
from kimideploy.remote.settings import Settings, settings
from kimideploy.remote.transport import Lost

#: what ssh itself ends with when it could not do its work
_OWN = 255


class OpenSsh:
    """A Transport; `connect` makes it."""

    kind = "openssh"

    def __init__(self, address: Address, words: list[str], folder: Path) -> None:
        self._address, self._words, self._folder = address, words, folder

    def start(self, command: str) -> _Program:
        """Return *command* running."""
        child = subprocess.Popen(
            [*self._words, "--", self._address.host, command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        return _Program(child, self)

    @contextmanager
    def forward(self, port: int) -> Iterator[int]:
        """Have a port of this machine lead to *port* over there."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            mine = int(server.getsockname()[1])
        way = f"127.0.0.1:{mine}:127.0.0.1:{port}"
        self._tell("forward", way)
        try:
            yield mine
        finally:
            with suppress(MachineError):
                self._tell("cancel", way)

    def close(self) -> None:
        """End the master."""
        subprocess.run(
            [*self._words, "-O", "exit", "--", self._address.host],
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        with suppress(OSError):
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()

    @property
    def is_alive(self) -> bool:
        """Whether the master still has its connection."""
        ended = subprocess.run(
            [*self._words, "-O", "check", "--", self._address.host],
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return ended.returncode == 0

    def lost(self) -> Lost:
        """Return what is raised when the connection broke."""
        return Lost(f"the connection to {self._address} broke")

    def _tell(self, word: str, way: str) -> None:
        ended = subprocess.run(
            [*self._words, "-O", word, "-L", way, "--", self._address.host],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if ended.returncode != 0:
            raise BusyError(f"ssh can't forward {way}: {ended.stderr.strip()}")


class _Program:
    """A Running."""

    def __init__(self, child: subprocess.Popen[bytes], above: OpenSsh) -> None:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise AssertionError(child)
        self._child, self._above = child, above
        self._in, self._out, self._err = child.stdin, child.stdout, child.stderr

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._in.write(view) or 0 :]

    def end(self) -> None:
        with suppress(OSError):
            self._in.close()

    def out(self, size: int) -> bytes:
        return self._out.read(size) or b""

    def err(self, size: int) -> bytes:
        return self._err.read(size) or b""

    def status(self) -> int:
        status = self._child.wait()
        self._out.close()
        self._err.close()
        # Why asked: 255 may be the program's own.
        if status == _OWN and not self._above.is_alive:
            raise self._above.lost()
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        self._child.kill()


def connect(address: Address, access: Access) -> OpenSsh:
    """Return a connection to *address*, its host key checked by ssh; raises as paramiko's does."""
    how = settings(address, access.config)
    for word in how.jumps:
        jump = parse(word)
        _first_contact(jump, access, settings(jump, access.config))
    words = _words(address, access, how)
    _first_contact(address, access, how)
    # Why /tmp: the path of a socket may have a hundred signs, and a home folder may lie deep.
    folder = Path(tempfile.mkdtemp(prefix="kd-"))
    master = [
        *words, "-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/s",
        "-o", "ControlPersist=600",
    ]  # fmt: skip
    transport = OpenSsh(address, master, folder)
    try:
        ended = _try([*master, "--", address.host, "true"], access.timeout + 10)
        if ended.returncode == _OWN:
            raise _cause(address, how, ended.stderr)  # noqa: TRY301
    except BaseException:
        transport.close()
        raise
    return transport


def _words(address: Address, access: Access, how: Settings) -> list[str]:
    words = ["ssh"]
    words += ["-F", str(access.config)] if access.config is not None else []
    words += ["-l", how.user, "-p", str(how.port)] if address.user or address.port else []
    for option in (
        "BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={access.timeout:.0f}",
        "ServerAliveInterval=5", f"ServerAliveCountMax={max(1, int(access.silence / 5))}",
        "ClearAllForwardings=no", "ForwardAgent=no", "RequestTTY=no",
    ):  # fmt: skip
        words += ["-o", option]
    return words


def _first_contact(address: Address, access: Access, how: Settings) -> None:
    """Have the host's key written down if it is new and may be; MachineError if it must not be.

    ssh is asked for the key alone: it ends before any login, and writes to a file of ours.
    """
    known = list(lines(how.known_hosts))
    if any(line.is_about(how.name) for line in known):
        return
    with tempfile.TemporaryDirectory(prefix="kd-") as name:
        fresh = Path(name) / "seen"
        # Why before the others: ssh takes the first value of an option it is given twice.
        ours = ("StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={fresh}",
                "GlobalKnownHostsFile=/dev/null", "HashKnownHosts=no", "ControlPath=none",
                "PreferredAuthentications=none")  # fmt: skip
        first = [word for option in ours for word in ("-o", option)]
        words = ["ssh", *first, *_words(address, access, how)[1:]]
        ended = _try([*words, "--", address.host, "true"], access.timeout + 10)
        seen = [line for line in lines([fresh]) if line.is_about(how.name)] or list(lines([fresh]))
    if not seen:
        raise _cause(address, how, ended.stderr)
    for line in seen[-1:]:
        standing, where = judge(known, how.name, line.key)
        print_ = fingerprint(line.key)
        if standing not in ("known", "unknown"):
            raise refused(address, standing, print_, where)
        may_record(address, access, line.kind, print_)
        record(how.own_known_hosts, how.name, line.kind, line.key, hashed=how.hashed)


def _try(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            errors="replace", timeout=seconds, env={**os.environ, "LC_ALL": "C"},
            # Why a session of its own: no ssh of a jump may ask behind our back on the terminal.
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"ssh made no connection within {seconds:.0f} s") from error


def _cause(address: Address, how: Settings, said: str) -> MachineError:
    where = f"{how.host}:{how.port}"
    if "HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return MachineError(
            f"the key of {address} is not the one that is known, or is refused",
            hint="somebody may stand between you and it. If the host was made anew: ssh-keygen -R"
            " NAME, and compare the new fingerprint",
        )
    if "Permission denied" in said or "Too many authentication" in said:
        return MachineError(
            f"{address} lets {how.user} in by none of the keys",
            hint=f"ssh-copy-id, ssh-add, or another user: --host USER@{address.host}",
        )
    if "Could not resolve" in said or "not known" in said:
        return MachineError(f"{address}: there is no host {how.host}")
    if "refused" in said:
        return MachineError(f"{where} refuses: no sshd listens there")
    if "No route" in said or "unreachable" in said or "timed out" in said:
        return MachineError(f"{where} does not answer, or can't be reached")
    last = (said.strip().splitlines() or ["no reason is given"])[-1]
    return MachineError(f"{address}: no SSH connection: {last}")
