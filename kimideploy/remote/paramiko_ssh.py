"""A connection by paramiko, with its traps out of the way.

Seen with 5.1: without TCP_NODELAY 1 MB/s instead of 80; a known_hosts with an @ line aborts the
load, a wildcard is not found, so the file is read by `known_hosts`; cbc, 3des, md5 and sha1 are
still offered; a stream that nobody reads stops the others.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import paramiko

from kimideploy.errors import MachineError
from kimideploy.remote.access import Access, may_record, refused
from kimideploy.remote.address import Address, parse
from kimideploy.remote.known_hosts import fingerprint, judge, kinds, lines, record
from kimideploy.remote.settings import Settings, settings
from kimideploy.remote.transport import CHUNK, Lost

_WEAK = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
    "kex": [
        "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1",
        "diffie-hellman-group-exchange-sha1",
    ],
    "keys": ["ssh-dss"],
    "pubkeys": ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "ssh-dss"],
}  # fmt: skip
#: seconds between two signs of life
_KEEPALIVE = 5
_MOST_JUMPS = 8
#: a signal ended the program; paramiko does not say which
_KILLED = 128
# Why: without a handler Python writes its warnings to stderr, and what matters is raised.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Paramiko:
    """A Transport; `connect` makes it."""

    kind = "paramiko"

    def __init__(
        self, client: paramiko.SSHClient, address: Address, below: Paramiko | None
    ) -> None:
        self._client, self._address, self._below = client, address, below
        found = client.get_transport()
        if found is None:
            raise Lost(f"the connection to {address} is gone")
        # Why not before: sshd knows no such request until it has let somebody in, and paramiko
        # may send it in the middle of the key exchange, where it waits for itself.
        found.set_keepalive(_KEEPALIVE)
        self._transport = found

    def start(self, command: str) -> _Program:
        """Return *command* running."""
        try:
            channel = self._transport.open_session(timeout=30)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from error
        return _Program(channel, self._transport, str(self._address))

    def channel_to(self, host: str, port: int) -> paramiko.Channel:
        """Return a channel through this host to another one; MachineError if it can't be."""
        try:
            return self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=30
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise MachineError(f"{self._address} does not reach {host}:{port}: {error}") from error

    @contextmanager
    def forward(self, port: int) -> Iterator[int]:
        """Have a port of this machine lead to *port* over there."""
        server = socket.create_server(("127.0.0.1", 0))
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                ready, _, _ = select.select([server], [], [], 0.2)
                if ready:
                    with suppress(OSError):
                        mine, _ = server.accept()
                        threading.Thread(target=self._join, args=(mine, port), daemon=True).start()

        helper = threading.Thread(target=serve, daemon=True)
        helper.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            over.set()
            helper.join()
            server.close()

    def close(self) -> None:
        """End it, and what it goes through."""
        self._client.close()
        if self._below is not None:
            self._below.close()

    def _join(self, mine: socket.socket, port: int) -> None:
        try:
            theirs = self.channel_to("127.0.0.1", port)
        except MachineError:
            mine.close()
            return
        back = threading.Thread(target=_pour, args=(theirs, mine), daemon=True)
        back.start()
        _pour(mine, theirs)
        back.join()
        mine.close()
        theirs.close()

    def _lost(self, error: BaseException) -> MachineError:
        if self._transport.is_active():
            return MachineError(f"{self._address} does not run a program: {error}")
        return Lost(f"the connection to {self._address} broke")


class _Program:
    """A Running."""

    def __init__(self, channel: paramiko.Channel, transport: paramiko.Transport, who: str) -> None:
        self._channel, self._transport, self._who = channel, transport, who

    def write(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
        except OSError as error:
            self._check()
            raise BrokenPipeError from error

    def end(self) -> None:
        with suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def out(self, size: int) -> bytes:
        return self._read(self._channel.recv, size)

    def err(self, size: int) -> bytes:
        return self._read(self._channel.recv_stderr, size)

    def status(self) -> int:
        status = self._channel.recv_exit_status()
        self._channel.close()
        if status == -1:
            # Why a moment: a transport that dies lets go of its channels before it says so.
            self._transport.join(1)
            self._check()
            return _KILLED
        return status

    def close(self) -> None:
        self._channel.close()

    def _read(self, recv: Any, size: int) -> bytes:
        data: bytes = recv(size)
        if not data:
            self._check()
        return data

    def _check(self) -> None:
        if not self._transport.is_active():
            raise Lost(f"the connection to {self._who} broke")


def connect(address: Address, access: Access, *, depth: int = 0) -> Paramiko:
    """Return a connection to *address*, its host key checked.

    Raises MachineError with the cause: no such name, refused, no answer, host key, login.
    """
    how = settings(address, access.config)
    below = _below(how, access, depth) if how.jumps else None
    try:
        way: Any = (
            below.channel_to(how.host, how.port)
            if below is not None
            else _socket(address, how, access)
        )
        return _login(address, how, access, way, below)
    except BaseException:
        if below is not None:
            below.close()
        raise


def _below(how: Settings, access: Access, depth: int) -> Paramiko:
    """Return the connection to the last of the jumps, through those before it."""
    if depth >= _MOST_JUMPS:
        raise MachineError("the jumps of the SSH configuration lead in a circle")
    found: Paramiko | None = None
    for word in how.jumps:
        jump = parse(word)
        inner = settings(jump, access.config)
        if found is None:
            found = connect(jump, access, depth=depth + 1)
        else:
            way = found.channel_to(inner.host, inner.port)
            found = _login(jump, inner, access, way, found)
    if found is None:
        raise MachineError("ProxyJump names no host")
    return found


def _socket(address: Address, how: Settings, access: Access) -> socket.socket:
    where = f"{how.host}:{how.port}"
    try:
        way = socket.create_connection((how.host, how.port), timeout=access.timeout)
    except socket.gaierror as error:
        raise MachineError(
            f"{address}: there is no host {how.host}", hint="the name, or the network's DNS"
        ) from error
    except TimeoutError as error:
        raise MachineError(
            f"{where} does not answer within {access.timeout:.0f} s",
            hint="the host is down, or a firewall drops what comes",
        ) from error
    except ConnectionRefusedError as error:
        raise MachineError(
            f"{where} refuses: no sshd listens there", hint=f"--host {address.host}:PORT"
        ) from error
    except OSError as error:
        raise MachineError(f"{where} can't be reached: {error.strerror or error}") from error
    way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Why: a line that was cut says nothing; what is sent and not acknowledged ends it.
        milliseconds = int(access.silence * 1000)
        way.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    way.settimeout(None)
    return way


def _login(
    address: Address, how: Settings, access: Access, way: Any, below: Paramiko | None
) -> Paramiko:
    known = list(lines(how.known_hosts))
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Policy(address, how, access, known))

    def transport(sock: Any, **more: Any) -> paramiko.Transport:
        made = paramiko.Transport(sock, **more)
        options = made.get_security_options()
        wanted = [kind for kind in kinds(known, how.name) if kind in options.key_types]
        if "ssh-rsa" in kinds(known, how.name):
            wanted += ["rsa-sha2-512", "rsa-sha2-256"]
        options.key_types = tuple(dict.fromkeys([*wanted, *options.key_types]))
        return made

    try:
        _enter(client, address, how, access, sock=way, transport_factory=transport)
        return Paramiko(client, address, below)
    except BaseException:
        # Why: after a refusal paramiko keeps its thread and the socket until sshd hangs up.
        client.close()
        raise


def _enter(
    client: paramiko.SSHClient, address: Address, how: Settings, access: Access, **words: Any
) -> None:
    """Have *client* logged in; MachineError if it is not let in."""
    keys = [str(path) for path in how.identities if path.is_file()]
    try:
        client.connect(
            how.host,
            how.port,
            username=how.user,
            key_filename=keys,  # type: ignore[arg-type]  # a list is taken, the stubs lag
            allow_agent=how.agent is not None and not how.only_identities,
            look_for_keys=False,
            timeout=access.timeout,
            banner_timeout=access.timeout,
            auth_timeout=access.timeout,
            disabled_algorithms=_WEAK,
            **words,
        )
    except paramiko.AuthenticationException as error:
        raise MachineError(
            f"{address} lets {how.user} in by none of the keys: {_tried(how)}",
            hint=f"ssh-copy-id, ssh-add, or another user: --host USER@{address.host}",
        ) from error
    except paramiko.SSHException as error:
        raise MachineError(f"{address}: no SSH connection: {error}") from error
    except (OSError, EOFError) as error:
        raise MachineError(f"{address}: the connection broke while it was made: {error}") from error
    except (ValueError, AssertionError, TypeError) as error:
        # Why: what went wrong in paramiko's own thread, or in a key file, comes up as it is.
        raise MachineError(f"{address}: no SSH connection: {error}") from error


class _Policy(paramiko.MissingHostKeyPolicy):
    """Asked for every key, as paramiko's own list stays empty."""

    def __init__(self, address: Address, how: Settings, access: Access, known: list[Any]) -> None:
        self._address, self._how, self._access, self._known = address, how, access, known

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        """Return if the key is right; MachineError if not."""
        del client, hostname
        raw, name = key.asbytes(), self._how.name
        print_ = fingerprint(raw)
        standing, where = judge(self._known, name, raw)
        if standing == "known":
            return
        if standing != "unknown":
            raise refused(self._address, standing, print_, where)
        may_record(self._address, self._access, key.get_name(), print_)
        record(self._how.own_known_hosts, name, key.get_name(), raw, hashed=self._how.hashed)


def _tried(how: Settings) -> str:
    keys = [str(path) for path in how.identities if path.is_file()]
    agent = "the agent" if how.agent is not None and os.environ.get("SSH_AUTH_SOCK") else None
    return ", ".join([*([agent] if agent else []), *keys]) or "there is none"


def _pour(source: Any, target: Any) -> None:
    with suppress(OSError, EOFError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError, EOFError):
        (target.shutdown_write if hasattr(target, "shutdown_write") else _half_close(target))()


def _half_close(target: socket.socket) -> Any:
    return lambda: target.shutdown(socket.SHUT_WR)
