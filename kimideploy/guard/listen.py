"""Where a guard listens."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

from kimideploy.errors import BusyError, MachineError

#: connections that may wait to be taken
_BACKLOG = 2048


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens at *host*."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises BusyError for a port in use, MachineError else."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BusyError(f"port {port} is in use", hint="--port with a free one") from error
        raise MachineError(f"{host}:{port} can't be listened on: {error.strerror}") from error
    return sock


def allow_many_files() -> None:
    """Let this process open as many files as its machine lets it: each connection is one."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
