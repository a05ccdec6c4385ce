"""Facts of this machine, or of a machine whose facts were saved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from kimideploy.documents import read_document
from kimideploy.errors import RequestError
from kimideploy.facts.probe import probe
from kimideploy.facts.types import SCHEMA, Aims, HostFacts

T = TypeVar("T")


class _Header(msgspec.Struct, frozen=True):
    schema: str


def inspect_local(
    *, venvs: Sequence[Path] = (), aims: Aims | None = None, only: Sequence[str] = ()
) -> HostFacts:
    """Return the facts of this machine; engines are looked for in PATH and in *venvs*.

    *aims* is what a plan wants to know besides; *only* names the sources that are asked.
    """
    wish = msgspec.to_builtins(aims) if aims is not None else None
    found = probe([str(venv) for venv in venvs], aims=wish, only=only)
    return msgspec.convert(found, HostFacts)


def read_facts(path: Path) -> HostFacts:
    """Return the facts that `inspect --json` saved at *path*, `-` for stdin.

    Raises RequestError with file, line and column for what is no HostFacts of this version.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if name == "stdin" else path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise RequestError(f"{name} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{name} is not UTF-8 text") from error
    found = _parsed(text, _Header, name).schema
    if found != SCHEMA:
        raise RequestError(
            f"{name} is of the schema {found!r}, this kimideploy reads {SCHEMA!r}",
            hint="save the facts again with the same version: kimideploy inspect --json",
        )
    return _parsed(text, HostFacts, name)


def _parsed(text: str, kind: type[T], name: str) -> T:
    try:
        # Why first: JSON may hold characters that YAML may not, a DEL in a mount's name say.
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return read_document(text, kind, name=name)
