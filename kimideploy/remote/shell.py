"""A host behind a connection: programs, as root where that is allowed, and files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kimideploy.errors import MachineError
from kimideploy.remote.access import Access
from kimideploy.remote.address import Address
from kimideploy.remote.transport import Done, Transport, command, run

#: none: as whoever logs in · free: sudo asks nothing · asked: sudo wants a password
Sudo = Literal["none", "free", "asked"]
#: Why counted: a connection that is cut ends the file early, and what is short must not be renamed.
_PUT = """\
umask 077
t="$1.$$.part"
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT TERM PIPE
(umask 022; mkdir -p "$(dirname "$1")") || exit 1
if [ "$4" = gzip ]; then gzip -dc > "$t"; else cat > "$t"; fi || exit 1
[ "$(wc -c < "$t")" -eq "$3" ] || { echo "it came cut short" >&2; exit 1; }
chmod "$2" "$t" && mv -f "$t" "$1"
"""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Shell:
    """A connection, and how programs become root over there."""

    address: Address
    transport: Transport
    sudo: Sudo = "none"
    password: str | None = None

    def __repr__(self) -> str:
        """Say nothing that is secret."""
        return f"Shell({self.address}, {self.transport.kind}, sudo={self.sudo})"

    def run(
        self,
        argv: Sequence[str],
        feed: Iterable[bytes] = (),
        on_out: Callable[[bytes], None] | None = None,
        *,
        plain: bool = False,
    ) -> Done:
        """Return how *argv* ended, as root if this shell is; *plain*: as whoever logs in.

        Raises Lost if the connection breaks.
        """
        words, first = self._as_root(argv) if not plain else (tuple(argv), b"")
        return run(self.transport, command(words), _after(first, feed), on_out)

    def check(self, argv: Sequence[str], feed: Iterable[bytes] = ()) -> bytes:
        """Return what *argv* printed; MachineError with its last words if it failed."""
        ended = self.run(argv, feed)
        if ended.status != 0:
            raise MachineError(f"{self.address}: {_name(argv)}: {ended.said}")
        return ended.out

    def script(self, text: str, *words: str, plain: bool = False) -> Done:
        """Return how the shell script *text* ended, given *words* as its arguments."""
        return self.run(["/bin/sh", "-c", text, "sh", *words], plain=plain)

    def put(self, source: bytes | Path, path: str, *, mode: int = 0o644) -> None:
        """Have the bytes of *source* at *path*, whole or not at all; MachineError if not."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        packed = size > _PIECE
        words = ["/bin/sh", "-c", _PUT, "sh", path, f"{mode:o}", str(size),
                 "gzip" if packed else "plain"]  # fmt: skip
        pieces = _pieces(source)
        ended = self.run(words, _gzipped(pieces) if packed else pieces)
        if ended.status != 0:
            raise MachineError(f"{self.address}: {path} can't be written: {ended.said}")

    def get(self, path: str) -> bytes:
        """Return the bytes of *path*; MachineError if it can't be read."""
        return self.check(["cat", "--", path])

    def as_root(self, access: Access) -> Shell:
        """Return this shell with its programs run by root; MachineError if that is not allowed."""
        if self.run(["sudo", "-n", "true"], plain=True).status == 0:
            return replace(self, sudo="free")
        if self.run(["sh", "-c", "command -v sudo"], plain=True).status != 0:
            raise MachineError(
                f"{self.address} has no sudo, and who logs in is not root",
                hint="--host root@…, or --scope user to deploy without root",
            )
        secret = access.sudo_password
        if secret is None and access.password is not None:
            secret = access.password(f"the password of sudo on {self.address}: ")
        if secret is None:
            raise MachineError(
                f"sudo on {self.address} wants a password",
                hint="--sudo-password-file FILE, run it on a terminal, or --scope user",
            )
        tried = replace(self, sudo="asked", password=secret)
        if tried.run(["true"]).status != 0:
            raise MachineError(
                f"sudo on {self.address} does not take that password, or does not let this user"
                " be root"
            )
        return tried

    def _as_root(self, argv: Sequence[str]) -> tuple[tuple[str, ...], bytes]:
        match self.sudo:
            case "none":
                return tuple(argv), b""
            case "free":
                return ("sudo", "-n", "--", *argv), b""
            case "asked":
                # Why -k: with it sudo always reads the line, so none is left for the program.
                words = ("sudo", "-k", "-S", "-p", "", "--", *argv)
                return words, f"{self.password}\n".encode()


def _after(first: bytes, feed: Iterable[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from feed


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), _PIECE):
            yield source[start : start + _PIECE]
        return
    with source.open("rb") as file:
        while data := file.read(_PIECE):
            yield data


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # Why 1: on a fast line the packing is what takes long.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        if data := packer.compress(piece):
            yield data
    yield packer.flush()


def _name(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2]
