"""Weights for the other nodes: this host gives what it has proved, for as long as somebody takes.

The manifest goes over SSH, by way of whoever deploys; only bytes go from node to node, and who
takes them hashes them against it. So neither the line between nodes nor this host is trusted.
"""

from __future__ import annotations

import ipaddress
import os
import re
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

_UNIT = "kimideploy-share-{}.service"
_ID = re.compile(r"[0-9a-f]{12}")
#: Seconds without a request after which nobody is taken to need it any more. Long, for whoever
#: takes may hash for hours what it had already; who deploys ends it sooner.
_IDLE = 6 * 3600.0
#: seconds it may take to listen
_PATIENCE = 30.0
#: it reads the store and listens, and nothing else
_HARDENED = (
    "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=read-only", "PrivateTmp=yes",
    "PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6", "CapabilityBoundingSet=", "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes", "SystemCallFilter=@system-service",
)  # fmt: skip


def shareable(address: str) -> bool:
    """Return True if other nodes can take weights from *address*; raises MachineError if not."""
    _free(address)
    return True


def share(home: Home, folders: Sequence[str], address: str) -> Shared:
    """Return where, and with which token, other nodes get what is in *folders* of the store.

    Raises RequestError for a folder that is none of its, MachineError where *address* is none that
    this host can listen on for others.
    """
    manifests = tuple(_manifest(home, Path(folder)) for folder in folders)
    if not manifests:
        raise RequestError("this host has no weights to give")
    host, port = _free(address)
    name, token, systemd = secrets.token_hex(6), secrets.token_urlsafe(32), Systemd(home.scope)
    unit, kept = _UNIT.format(name), _token(home, name)
    words = [program(home), "host", "share", "--address", host, "--port", str(port)]
    properties: tuple[str, ...] = (f"ExecStopPost=-/bin/rm -f {kept}",)
    if home.scope == "system":
        # Why +: the file is root's, and the unit is not.
        properties = (
            f"ExecStopPost=+-/bin/rm -f {kept}", f"User={USER}", f"Group={USER}", *_HARDENED,
            f"LoadCredential=token:{kept}",
        )  # fmt: skip
    else:
        words += ["--token-file", str(kept)]
    try:
        write(kept, token.encode(), mode=0o600)
        systemd.detach(unit.removesuffix(".service"), [*words, "--", *folders], None, properties)
        _wait(systemd, unit, host, port)
    except BaseException:
        systemd.stop(unit)
        remove(kept)
        raise
    shown = f"[{host}]" if ":" in host else host
    return Shared(id=name, url=f"http://{shown}:{port}", token=token, manifests=manifests)


def unshare(home: Home, name: str | None = None) -> bool:
    """Give nothing away any more under *name*, None: nothing at all; return whether anything was.

    Raises RequestError for a name that is none.
    """
    if name is not None and not _ID.fullmatch(name):
        raise RequestError(f"{name!r} is nothing that was given away")
    systemd = Systemd(home.scope)
    unit = _UNIT.format(name if name is not None else "*")
    was = systemd.show(unit).is_up if name is not None else True
    systemd.stop(unit)
    for path in home.settings.glob(f"share-{name if name is not None else '*'}.token"):
        remove(path)
    return was


def serve(folders: Sequence[Path], address: str, port: int, token_file: Path | None) -> None:
    """Give away *folders* until nobody has asked for a while; the unit's own work."""
    # Why here: every other word to a host would load an HTTP server, too.
    from kimideploy.weights.share import Share, files_of  # noqa: PLC0415

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


def _token(home: Home, name: str) -> Path:
    return home.settings / f"share-{name}.token"


def _free(address: str) -> tuple[str, int]:
    """Return *address* as numbers, and a port of it that nobody listens on."""
    hint = "--share-address names this host by an address of its own that the others reach"
    try:
        family, _, _, _, found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(found)
            name = probe.getsockname()
    except OSError as error:
        raise MachineError(
            f"the first host does not listen on {address}: {error.strerror or error}", hint=hint
        ) from error
    number = ipaddress.ip_address(str(name[0]).partition("%")[0])
    # Why: many a host has its own name for 127.0.1.1, and the others would ask themselves.
    if number.is_loopback or number.is_unspecified:
        raise MachineError(f"the first host knows {address} as {number}, itself alone", hint=hint)
    return str(name[0]), int(name[1])


def _wait(systemd: Systemd, unit: str, host: str, port: int) -> None:
    """Return when *unit* listens."""
    until = time.monotonic() + _PATIENCE
    while not _listens(host, port):
        if time.monotonic() > until or not systemd.show(unit).is_up:
            raise MachineError(
                f"the weights can't be given away on {host}:{port}",
                hint=f"journalctl -u {unit} on the host says why",
            )
        time.sleep(0.1)


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
