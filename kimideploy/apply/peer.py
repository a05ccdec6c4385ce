"""Weights for the other nodes: this host gives what it has proved, for as long as somebody takes.

The manifest goes over SSH, by way of whoever deploys; only bytes go from node to node, and who
takes them hashes them against it. So neither the line between nodes nor this host is trusted.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from kimideploy.apply.answers import Shared
from kimideploy.apply.files import remove, write
from kimideploy.apply.home import USER, Home
from kimideploy.apply.steps.base import program
from kimideploy.apply.systemd import Systemd
from kimideploy.errors import MachineError, RequestError
from kimideploy.weights.manifest import Manifest, read_manifest
from kimideploy.weights.share import Share, files_of

UNIT = "kimideploy-share.service"
#: seconds without a request after which nobody is taken to need it any more
_IDLE = 1800.0
#: seconds it may take to listen
_PATIENCE = 30.0
#: it reads the store and listens, and nothing else
_HARDENED = (
    "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=read-only", "PrivateTmp=yes",
    "PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6", "CapabilityBoundingSet=", "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes", "SystemCallFilter=@system-service",
)  # fmt: skip


def share(home: Home, folders: Sequence[str], address: str) -> Shared:
    """Return where, and with which token, other nodes get what is in *folders* of the store.

    Raises RequestError for a folder that is none of its, MachineError where *address* is none that
    this host can listen on.
    """
    manifests = tuple(_manifest(home, Path(folder)) for folder in folders)
    host, port = _free(address)
    token, systemd = secrets.token_urlsafe(32), Systemd(home.scope)
    systemd.stop(UNIT)
    write(_token(home), token.encode(), mode=0o600)
    words = [program(home), "host", "share", "--address", host, "--port", str(port)]
    kept: tuple[str, ...] = ()
    if home.scope == "system":
        kept = (f"User={USER}", f"Group={USER}", *_HARDENED, f"LoadCredential=token:{_token(home)}")
    else:
        words += ["--token-file", str(_token(home))]
    systemd.detach(UNIT.removesuffix(".service"), [*words, "--", *folders], properties=kept)
    until = time.monotonic() + _PATIENCE
    while not _listens(host, port):
        if time.monotonic() > until or not systemd.show(UNIT).is_up:
            raise MachineError(
                f"the weights can't be given away on {host}:{port}",
                hint=f"journalctl -u {UNIT} on the host says why",
            )
        time.sleep(0.1)
    shown = f"[{host}]" if ":" in host else host
    return Shared(url=f"http://{shown}:{port}", token=token, manifests=manifests)


def unshare(home: Home) -> bool:
    """Give nothing away any more; return whether anything was."""
    systemd = Systemd(home.scope)
    was = systemd.show(UNIT).is_up
    systemd.stop(UNIT)
    remove(_token(home))
    return was


def serve(folders: Sequence[Path], address: str, port: int, token_file: Path | None) -> None:
    """Give away *folders* until nobody has asked for a while; the unit's own work."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    path = token_file if token_file is not None else Path(given or "/nowhere") / "token"
    try:
        token = path.read_text(encoding="ascii").strip()
        server = Share((address, port), files_of(folders), token, idle=_IDLE)
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"weights can't be given away: {error}") from error
    with server:
        server.serve_forever()


def _manifest(home: Home, folder: Path) -> Manifest:
    inside = folder.is_absolute() and folder.resolve().is_relative_to(home.models.resolve())
    manifest = read_manifest(folder) if inside else None
    if manifest is None or folder.name != manifest.revision:
        raise RequestError(f"{folder} holds no weights that this host has proved")
    return manifest


def _token(home: Home) -> Path:
    return home.settings / "share.token"


def _free(address: str) -> tuple[str, int]:
    """Return *address* as numbers, and a port of it that nobody listens on."""
    try:
        family, _, _, _, found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(found)
            name = probe.getsockname()
    except OSError as error:
        raise MachineError(
            f"this host does not listen on {address}: {error.strerror or error}",
            hint="--head-address names it by an address of its own that the other nodes reach",
        ) from error
    return str(name[0]), int(name[1])


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
