"""The name of a host as it is typed: [USER@]HOST[:PORT], or an alias of the SSH configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kimideploy.errors import RequestError

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")
_HOST = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?|[0-9A-Fa-f:.]+(?:%[\w.-]+)?"
)
_MOST = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A host to reach; None is left to the SSH configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Return it as it is typed."""
        user = f"{self.user}@" if self.user is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port is not None else "")


def parse(text: str) -> Address:
    """Return the address that *text* names; RequestError for what could be read as anything else.

    Why so strict: a name that begins with a dash would be an option of ssh, and one with a blank
    or a quotation mark two words of somebody's ProxyCommand.
    """
    rest = text.removeprefix("ssh://").rstrip("/") if text.startswith("ssh://") else text
    user, at, place = rest.rpartition("@")
    host, port, sound = _divided(place)
    if port is not None and not (
        port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _MOST
    ):
        raise RequestError(f"--host {text!r}: {port!r} is no port")
    if not sound or not _HOST.fullmatch(host) or (at and not _USER.fullmatch(user)):
        raise RequestError(
            f"--host {text!r} is no host", hint="USER@HOST, USER@HOST:PORT, or an alias of ssh"
        )
    return Address(host, user or None, int(port) if port is not None else None)


def _divided(place: str) -> tuple[str, str | None, bool]:
    """Return host and port, and whether the brackets around an IPv6 address are in order."""
    if place.startswith("["):
        host, bracket, tail = place[1:].partition("]")
        port = tail[1:] if tail.startswith(":") else None
        return host, port, bool(bracket) and (not tail or port is not None)
    host, colon, tail = place.partition(":")
    if colon and ":" not in tail:
        return host, tail, True
    return place, None, True
