"""Run a guard until it is told to end."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

import uvicorn

from kimideploy.errors import BusyError, MachineError, RequestError
from kimideploy.guard.app import Guard, Settings

#: seconds that answers under way have to end
_GRACE = 30
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


def run(
    settings: Settings, sock: socket.socket, *, certificate: Path | None, private: Path | None
) -> None:
    """Serve on *sock* until SIGTERM or SIGINT; answers under way may end. Raises RequestError."""
    try:
        config = uvicorn.Config(
            Guard(settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE,
            ssl_certfile=certificate,
            ssl_keyfile=private,
        )
        config.load()
    except (OSError, ValueError) as error:
        raise RequestError(f"certificate and key can't be used: {error}") from error
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[sock])
    except KeyboardInterrupt:
        return
