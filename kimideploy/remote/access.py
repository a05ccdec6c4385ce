"""How the operator lets us in: host keys, which ssh, passwords. Nothing of it is ever written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kimideploy.errors import MachineError, RequestError
from kimideploy.remote.address import Address
from kimideploy.remote.known_hosts import Standing

Which = Literal["auto", "paramiko", "openssh"]
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What was said about getting in. `timeout` is seconds to connect, `silence` until a line
    that does not answer counts as dead."""

    ssh: Which = "auto"
    config: Path | None = None
    accept_new: bool = False
    #: the only key that may be recorded, SHA256:…
    host_key: str | None = None
    #: asks a person whether a new key is right; None: nobody is there
    ask: Callable[[str], bool] | None = None
    #: asks a person for the password of sudo
    password: Callable[[str], str] | None = None
    sudo_password: str | None = None
    timeout: float = 20.0
    silence: float = 20.0

    def __repr__(self) -> str:
        """Say nothing that is secret."""
        return f"Access(ssh={self.ssh!r})"


def may_record(address: Address, access: Access, kind: str, print_: str) -> None:
    """Return if a key that nobody has seen before may be written down; MachineError if not."""
    shown = f"{address} shows a {kind} key that is not known here:\n  {print_}"
    if access.host_key is not None:
        if print_.rstrip("=") == access.host_key.rstrip("="):
            return
        raise MachineError(
            f"{address} shows the key {print_}, and --host-key says {access.host_key}",
            hint="somebody may stand between you and it; ask who runs the host for its fingerprint",
        )
    if access.accept_new or (access.ask is not None and access.ask(shown)):
        return
    raise MachineError(
        shown,
        hint=f"compare it with what the host's console shows, then --host-key {print_}",
    )


def checked_fingerprint(text: str) -> str:
    """Return a fingerprint as it is typed; RequestError for what is none."""
    if not _FINGERPRINT.fullmatch(text):
        raise RequestError(
            f"--host-key {text!r} is no fingerprint",
            hint="SHA256:… as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it",
        )
    return text


def refused(address: Address, standing: Standing, print_: str, where: str | None) -> MachineError:
    """Return why a host is not to be spoken to."""
    match standing:
        case "changed":
            return MachineError(
                f"the key of {address} has changed: it shows {print_}, and {where} has another",
                hint="somebody may stand between you and it. If the host was made anew:"
                " ssh-keygen -R NAME, and compare the new fingerprint",
            )
        case "revoked":
            return MachineError(f"the key {print_} of {address} is revoked: {where}")
        case "certified":
            return MachineError(
                f"{address} is known by an authority ({where}), and paramiko reads no certificates",
                hint="--ssh openssh",
            )
        case "known" | "unknown":
            raise AssertionError(standing)
