"""API keys: made here, kept as hashes, told from one another by name."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from kimideploy.errors import MachineError, RequestError
from kimideploy.files import write_whole

#: what a key begins with, so that scanners for leaked secrets can find it
PREFIX = "kd-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(r"(?P<name>\S+) sha256:(?P<hash>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Keys:
    """Hash → name. Hashes are plain SHA-256: keys are 256 random bits, so nothing is guessed."""

    names: dict[str, str]

    def name_of(self, key: str) -> str | None:
        """Return whose *key* it is, None if nobody's.

        Looked up by its hash: how long that takes tells nothing of any key.
        """
        return self.names.get(_hash(key))


def read(path: Path) -> Keys:
    """Return the keys in *path*; raises RequestError, with the line of what is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RequestError(
            f"there is no file of keys at {path}",
            hint=f"kimideploy guard key NAME --keys {path}",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the keys in {path} can't be read: {error}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise RequestError(f"{path}:{number}: no line of a key: NAME sha256:HEX is asked for")
        names[found["hash"]] = found["name"]
    return Keys(names)


def add(path: Path, name: str) -> str:
    """Return a new key for *name*, whose hash is then in *path*; the key itself is kept nowhere."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} is no name of a key: letters, digits, dot, dash and underline"
        )
    names = dict(read(path).names) if path.exists() else {}
    if name in names.values():
        raise RequestError(f"{name} has a key", hint=f"kimideploy guard key {name} --remove first")
    key = PREFIX + secrets.token_urlsafe(32)
    _write(path, names | {_hash(key): name})
    return key


def remove(path: Path, name: str) -> None:
    """Take the key of *name* away; raises RequestError if it has none."""
    names = read(path).names
    if name not in names.values():
        raise RequestError(f"{name} has no key in {path}")
    _write(path, {digest: one for digest, one in names.items() if one != name})


def _write(path: Path, names: dict[str, str]) -> None:
    lines = ["# Keys of kimideploy guard: names, and hashes of what clients send."]
    lines += [f"{name} sha256:{digest}" for digest, name in names.items()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, ("\n".join(lines) + "\n").encode(), mode=0o600)
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}") from error


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
