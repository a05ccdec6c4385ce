"""`clients.yaml`: what is pointed at an endpoint, and what it does with earlier reasoning."""

from __future__ import annotations

from typing import Literal

from kimideploy.catalog.types import Profile, Source


class ConfigFile(Profile, frozen=True, kw_only=True):
    """A file of a client: where it lies, and the template that gives its shape."""

    path: str
    template: str


class Client(Profile, frozen=True, kw_only=True):
    """What is pointed at an endpoint. `reasoning` is what it does with that of earlier turns."""

    id: str
    name: str
    files: tuple[ConfigFile, ...]
    reasoning: Literal["kept", "dropped", "unknown"]
    source: str
    guess: bool = False
    note: str | None = None
    notes: tuple[str, ...] = ()


class ClientsFile(Profile, frozen=True, kw_only=True):
    """`clients.yaml`."""

    sources: dict[str, Source]
    clients: tuple[Client, ...]
