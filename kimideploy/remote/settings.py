"""How a host is reached, as the user's own SSH configuration says: asked of `ssh -G` itself.

Only ssh knows what Include, Match and tokens come to; without an ssh, paramiko's reader is taken.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import RequestError
from kimideploy.remote.address import Address

_PORT = 22
#: what paramiko can't do: the values that ask for nothing, and what any other means
_BEYOND = {
    "proxycommand": (("none",), "a ProxyCommand"),
    "revokedhostkeys": (("none",), "a list of revoked host keys"),
    "knownhostscommand": (("none",), "a KnownHostsCommand"),
    "pkcs11provider": (("none",), "a smart card"),
    "hostbasedauthentication": (("no", "false"), "host-based authentication"),
    "identityagent": (("SSH_AUTH_SOCK", "none"), "an agent of its own"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a connection is made with. `name` is what known_hosts calls the host."""

    host: str
    port: int
    user: str
    name: str
    identities: tuple[Path, ...]
    certificates: tuple[Path, ...]
    known_hosts: tuple[Path, ...]
    own_known_hosts: Path
    agent: str | None
    only_identities: bool
    jumps: tuple[str, ...]
    hashed: bool
    #: why paramiko can't make this connection, None if it can
    beyond_paramiko: str | None = None


def settings(address: Address, config: Path | None) -> Settings:
    """Return how *address* is reached; *config* is read instead of the user's own file.

    Raises RequestError if ssh can't read its configuration.
    """
    asked = _from_ssh(address, config) if shutil.which("ssh") else _from_file(address, config)

    def one(name: str, default: str = "") -> str:
        return next(iter(asked.get(name, ())), default)

    def paths(name: str) -> tuple[Path, ...]:
        return tuple(Path(w).expanduser() for w in asked.get(name, ()) if w != "none")

    def files(name: str) -> tuple[Path, ...]:
        words = (word for line in asked.get(name, ()) for word in line.split())
        return tuple(Path(word).expanduser() for word in words if word != "none")

    own = files("userknownhostsfile") or (Path("~/.ssh/known_hosts").expanduser(),)
    host, port = one("hostname", address.host), int(one("port", str(_PORT)))
    alias = one("hostkeyalias", "none")
    named = alias if alias != "none" else host
    jump, agent = one("proxyjump", "none"), one("identityagent", "SSH_AUTH_SOCK")
    return Settings(
        host=host,
        port=port,
        user=one("user") or address.user or getpass.getuser(),
        name=named if port == _PORT or alias != "none" else f"[{host}]:{port}",
        identities=paths("identityfile"),
        certificates=paths("certificatefile"),
        known_hosts=(*own, *files("globalknownhostsfile")),
        own_known_hosts=own[0],
        agent=agent if agent != "none" else None,
        only_identities=one("identitiesonly", "no") == "yes",
        jumps=tuple(jump.split(",")) if jump != "none" else (),
        hashed=one("hashknownhosts", "no") == "yes",
        beyond_paramiko=_beyond(asked, paths("identityfile")),
    )


def _beyond(asked: Mapping[str, Sequence[str]], identities: Sequence[Path]) -> str | None:
    for name, (usual, what) in _BEYOND.items():
        if asked.get(name, [usual[0]])[0] not in usual:
            return what
    for path in identities:
        try:
            public = path.with_name(f"{path.name}.pub").read_bytes()
        except OSError:
            continue
        if public.startswith(b"sk-"):
            return f"the FIDO key {path}"
    return None


def _from_ssh(address: Address, config: Path | None) -> dict[str, list[str]]:
    words = ["ssh", "-G"]
    words += ["-F", str(config)] if config is not None else []
    words += ["-l", address.user] if address.user is not None else []
    words += ["-p", str(address.port)] if address.port is not None else []
    try:
        ended = subprocess.run(
            [*words, "--", address.host], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, errors="replace", timeout=30,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RequestError("ssh -G does not end: a Match exec hangs") from error
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or ["?"])[-1]
        raise RequestError(f"ssh can't read its configuration: {said}")
    found: dict[str, list[str]] = {}
    for line in ended.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name.lower(), []).append(value.strip('"'))
    return found


def _from_file(address: Address, config: Path | None) -> dict[str, list[str]]:
    import paramiko  # noqa: PLC0415

    path = config or Path("~/.ssh/config").expanduser()
    found: dict[str, list[str]] = {}
    if path.is_file():
        for name, value in paramiko.SSHConfig.from_path(str(path)).lookup(address.host).items():
            found[name] = [value] if isinstance(value, str) else list(value)
    if address.user is not None:
        found["user"] = [address.user]
    if address.port is not None:
        found["port"] = [str(address.port)]
    usual = ("id_ed25519", "id_ecdsa", "id_rsa")
    found.setdefault("identityfile", [f"~/.ssh/{name}" for name in usual])
    return found
