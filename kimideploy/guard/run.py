"""Run a guard until it is told to end."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import uvicorn

from kimideploy.errors import RequestError
from kimideploy.guard.app import Guard, Settings
from kimideploy.guard.listen import allow_many_files
from kimideploy.guard.protocol import Bounded

#: seconds that answers under way have to end
_GRACE = 30


def server(settings: Settings, *, certificate: Path | None, private: Path | None) -> uvicorn.Server:
    """Return a server for *settings*; raises RequestError for a certificate that is none."""
    # Why silent: strangers could fill the log, and what it would say is counted in /metrics.
    logging.getLogger("uvicorn.error").disabled = True
    try:
        config = uvicorn.Config(
            Guard(settings),
            loop="uvloop",
            http=Bounded,
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
    return uvicorn.Server(config)


def run(made: uvicorn.Server, sock: socket.socket) -> None:
    """Serve on *sock* until SIGTERM or SIGINT; answers under way may end."""
    allow_many_files()
    try:
        made.run(sockets=[sock])
    except KeyboardInterrupt:
        return
