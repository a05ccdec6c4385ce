"""known_hosts as OpenSSH reads it: hashed names, wildcards, negation, @cert-authority, @revoked."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kimideploy.errors import MachineError

#: known: go on · unknown: nobody ever said · changed: another key is written down for this name ·
#: revoked: never · certified: only a certificate counts, and paramiko reads none
Standing = Literal["known", "unknown", "changed", "revoked", "certified"]
_LARGEST = 16 << 20
_WORDS = 3  # names, kind, key


@dataclass(frozen=True, slots=True)
class Line:
    """One line: who it is about, and the key in it. `where` is FILE:LINE."""

    marker: str | None
    names: str
    kind: str
    key: bytes
    where: str

    def is_about(self, name: str) -> bool:
        """Return whether this line speaks of *name*, as known_hosts writes it."""
        if self.names.startswith("|1|"):
            return _is_hash_of(self.names, name)
        found = False
        for pattern in self.names.split(","):
            if _matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


def lines(paths: Iterable[Path]) -> Iterator[Line]:
    """Yield every line of the files that can be read; what is none is left out, as ssh does."""
    for path in paths:
        try:
            if path.stat().st_size > _LARGEST:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for number, raw in enumerate(text.split("\n"), 1):
            found = _line(raw.strip(), f"{path}:{number}")
            if found is not None:
                yield found


def judge(found: Sequence[Line], name: str, key: bytes) -> tuple[Standing, str | None]:
    """Return what the lines say of *key* for *name*, and the line that decides it."""
    about = [line for line in found if line.is_about(name)]
    for line in about:
        if line.marker == "@revoked" and line.key == key:
            return "revoked", line.where
    plain = [line for line in about if line.marker is None]
    for line in plain:
        if line.key == key:
            return "known", line.where
    if plain:
        # Why also another kind: its known kinds were asked for first, so it has none of them.
        return "changed", plain[0].where
    for line in about:
        if line.marker == "@cert-authority":
            return "certified", line.where
    return "unknown", None


def kinds(found: Sequence[Line], name: str) -> tuple[str, ...]:
    """Return the kinds of key that are known of *name*: these are to be asked for first."""
    here = (line.kind for line in found if line.marker is None and line.is_about(name))
    return tuple(dict.fromkeys(here))


def needs_certificates(found: Sequence[Line], name: str) -> bool:
    """Return whether *name* is known by an authority and by no key of its own."""
    markers = {line.marker for line in found if line.is_about(name)}
    return "@cert-authority" in markers and None not in markers


def fingerprint(key: bytes) -> str:
    """Return SHA256:… of a public key as ssh-keygen -l prints it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip('=')}"


def record(path: Path, name: str, kind: str, key: bytes, *, hashed: bool) -> None:
    """Append the key of *name* to *path*, which is made with mode 0600 where it is missing."""
    who = _hash(name, os.urandom(20)) if hashed else name
    text = f"{who} {kind} {base64.b64encode(key).decode()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (("\n" if torn else "") + text).encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}") from error


def _line(text: str, where: str) -> Line | None:
    words = text.split()
    if not words or text.startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else None
    if len(words) < _WORDS:
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Line(marker, words[0], words[1], key, where)


def _matches(pattern: str, name: str) -> bool:
    # Why: [ ] are plain signs here, around a name with a port; * and ? are all there is.
    def literal(text: str) -> str:
        return text.lower().replace("[", "\x00").replace("]", "\x01")

    return fnmatch.fnmatchcase(literal(name), literal(pattern))


def _is_hash_of(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        made = _hash(name, base64.b64decode(salt))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(made.rpartition("|")[2], digest)


def _hash(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
