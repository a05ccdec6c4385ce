"""The manifest: the files of one checkpoint at one commit, with what proves each of them.

What a hub, a mirror or a bundle says is hostile until `checked` has passed it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.facts.types import Strict

if TYPE_CHECKING:
    from hashlib import _Hash

SCHEMA = "kimideploy.weights/1"
#: our own folder inside a folder of weights
OWN = ".kimideploy"
MANIFEST = "manifest.json"
#: bytes and files of the largest checkpoint anyone could mean: ten times what was ever published
_MOST_BYTES, _MOST_FILES = 100_000_000_000_000, 100_000
_MOST_MANIFEST = 64 << 20
_LONGEST_PART, _LONGEST_PATH = 200, 1000
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
#: formats that run code when they are opened
PICKLE = (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
Algorithm = Literal["sha256", "git"]


class Item(Strict, frozen=True):
    """One file: its bytes, and the sha256 of a large file or the git blob id of a small one."""

    path: str
    size: int
    sha256: str | None = None
    oid: str | None = None
    #: the file's name in the xet store, where it lies there too
    xet: str | None = None

    @property
    def digest(self) -> str:
        """What its bytes must hash to."""
        return self.sha256 or self.oid or ""

    @property
    def algorithm(self) -> Algorithm:
        """How they are hashed."""
        return "sha256" if self.sha256 is not None else "git"

    @property
    def code(self) -> bool:
        """Whether an engine runs it: Python, or a chat template."""
        return self.path.endswith((".py", ".jinja"))

    def hasher(self) -> _Hash:
        """Return a new hash that yields `digest` once it was fed all bytes."""
        if self.sha256 is not None:
            return hashlib.sha256()
        # Why not for security: git names its blobs so, and the hub knows no better of small files.
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


class Manifest(Strict, frozen=True):
    """The files of one checkpoint at one commit, in the order in which they are fetched."""

    repo: str
    revision: str
    items: tuple[Item, ...]
    #: of several checkpoints in the repository, the GGUF quant
    quant: str | None = None
    schema: str = SCHEMA

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.items)

    @property
    def proofs(self) -> dict[str, tuple[int, str]]:
        """Size and hash of each file by its name: what makes two manifests mean the same."""
        return {item.path: (item.size, item.digest) for item in self.items}

    @property
    def code(self) -> tuple[Item, ...]:
        """The files an engine would run."""
        return tuple(item for item in self.items if item.code)


def checked(manifest: Manifest) -> Manifest:
    """Return *manifest*, or raise WeightsError for a file that could do harm or can't be proved."""
    if manifest.schema != SCHEMA:
        raise WeightsError(f"a manifest of the schema {manifest.schema!r} can't be read here")
    if not _REPO.fullmatch(manifest.repo) or ".." in manifest.repo:
        raise WeightsError(f"{manifest.repo[:100]!r} is no name of a repository")
    if not COMMIT.fullmatch(manifest.revision):
        raise WeightsError(f"{manifest.revision[:60]!r} is no commit: 40 hex digits name one")
    if manifest.quant is not None and not _QUANT.fullmatch(manifest.quant):
        raise WeightsError(f"{manifest.quant[:60]!r} is no name of a quant")
    if not manifest.items:
        raise WeightsError(f"the manifest of {manifest.repo} names no files")
    if len(manifest.items) > _MOST_FILES:
        raise WeightsError(f"the manifest of {manifest.repo} names {len(manifest.items):,} files")
    for item in manifest.items:
        _harmless(item)
    _apart(item.path for item in manifest.items)
    if manifest.size > _MOST_BYTES:
        raise WeightsError(f"the manifest of {manifest.repo} comes to {manifest.size:,} bytes")
    return manifest


def safe(path: str) -> bool:
    """Return whether *path* stays inside the folder it is put in, on every system."""
    parts = path.split("/")
    return (
        0 < len(path) <= _LONGEST_PATH
        and path.isprintable()
        and not set(path) & set('\\:*?"<>|')
        and all(0 < len(part.encode()) <= _LONGEST_PART for part in parts)
        and not any(part[0] in ".~" or part[-1] in ". " for part in parts)
        and PurePosixPath(path).as_posix() == path
    )


def decode(data: bytes, *, name: str) -> Manifest:
    """Return the manifest in *data*, checked; WeightsError naming *name* for what is none."""
    try:
        return checked(msgspec.json.decode(data, type=Manifest))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"{name} is no manifest: {error}") from error


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest that a pull left in *folder*, None if there is none."""
    path = folder / OWN / MANIFEST
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from error
    return decode(data[:_MOST_MANIFEST], name=str(path))


def encode(manifest: Manifest) -> bytes:
    """Return *manifest* as indented JSON, the same bytes every time."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def _harmless(item: Item) -> None:
    shown = repr(item.path[:100])
    if not safe(item.path):
        raise WeightsError(f"the file name {shown} is refused: it could leave the folder")
    if item.path.lower().endswith(PICKLE):
        raise WeightsError(f"{shown} is refused: a pickle runs code when it is opened")
    if not 0 <= item.size <= _MOST_BYTES:
        raise WeightsError(f"{shown} can't have {f'{item.size:,}'[:40]} bytes")
    proof = _SHA256.fullmatch(item.sha256) if item.sha256 else _SHA1.fullmatch(item.oid or "")
    if proof is None:
        raise WeightsError(f"{shown} has no hash that its bytes could be checked against")
    if item.xet is not None and not _SHA256.fullmatch(item.xet):
        raise WeightsError(f"{shown} has no possible name in the xet store")


def _apart(paths: Iterable[str]) -> None:
    """Raise WeightsError where two names are one, on some system, or one is the other's folder."""
    files: dict[str, str] = {}
    folders: set[str] = set()
    for path in paths:
        key = path.casefold()
        if key in files:
            raise WeightsError(
                f"{path[:100]!r} and {files[key][:100]!r} are one file on some systems"
            )
        files[key] = path
        folders.update(str(parent) for parent in PurePosixPath(key).parents)
    both = sorted(folders & files.keys())
    if both:
        raise WeightsError(f"{both[0][:100]!r} is a file and a folder")
