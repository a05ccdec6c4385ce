"""An Order: what a host is to become, as one file that the laptop writes and the host carries out.

It holds no secret: keys are named by the file they lie in on the host.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from kimideploy.apply.events import Rehearsal
from kimideploy.catalog.load import load_catalog, profile_files, shape_of
from kimideploy.catalog.types import Catalog
from kimideploy.documents import read_document
from kimideploy.errors import RequestError
from kimideploy.facts.types import Strict
from kimideploy.planning.types import Plan
from kimideploy.weights.manifest import Manifest

SCHEMA = "kimideploy.order/1"


class Source(Strict, frozen=True, omit_defaults=True):
    """Where the engine comes from.

    install: a fresh environment at the pinned version · venv: the one at `path`, as it is ·
    stand-in: a rehearsal without an engine · nano: one with the vLLM at `path`, on the CPU and a
    nano Kimi
    """

    kind: Literal["install", "venv", "stand-in", "nano"] = "install"
    path: str | None = None
    #: an index other than PyPI, and a folder of wheels on the host for a host without any
    index: str | None = None
    wheels: str | None = None

    @property
    def rehearsal(self) -> Rehearsal | None:
        """What is rehearsed with, None for the real thing."""
        match self.kind:
            case "stand-in":
                return "stand-in"
            case "nano":
                return "vllm"
            case _:
                return None


class Peer(Strict, frozen=True):
    """What another node has: the manifests, and where it gives the files away; None: no more."""

    manifests: tuple[Manifest, ...]
    url: str | None = None


class Order(Strict, frozen=True, omit_defaults=True):
    """The plan, which of its nodes this host is, and how to go about it. Times are seconds."""

    plan: Plan
    node: int = 0
    engine: Source = Source()
    #: folders whose files may be taken over instead of fetched, and whether the hub may be asked
    adopt: tuple[str, ...] = ()
    bundle: str | None = None
    offline: bool = False
    accept_code: bool = False
    #: the longest silence of the log while it loads; None: what a load of that size may need
    quiet: float | None = None
    #: another hub than the usual one
    hub: str | None = None
    #: the node to take weights from instead of a hub, or to have the same as
    peer: Peer | None = None
    #: only bring engine and weights, and change nothing that runs
    prepare: bool = False
    #: profiles of the operator's own: path below the folder, and text
    profiles: tuple[tuple[str, str], ...] = ()
    #: proved releases that are kept besides the current one
    keep: int = 3
    #: wait this long for the word that the other nodes are well, too; None: nobody needs to say it
    confirm: float | None = None
    #: checks of the doctor that must not refuse
    skip: tuple[str, ...] = ()
    #: how often the dead man looks whether a change was left unfinished
    dead_man: float = 60.0
    #: who asks, "user@machine"; not part of what is asked
    who: str = "unknown"
    schema: str = SCHEMA

    @property
    def digest(self) -> str:
        """The sha256 of what is asked, whoever asks and however the weights come."""
        same = Order(
            plan=self.plan,
            node=self.node,
            engine=self.engine,
            quiet=self.quiet,
            profiles=self.profiles,
        )
        return hashlib.sha256(msgspec.json.encode(same, enc_hook=int)).hexdigest()


def written(order: Order) -> bytes:
    """Return *order* as the file that `read` reads."""
    return msgspec.json.encode(order, enc_hook=int)


def read(text: str, *, name: str) -> Order:
    """Return the order in *text*; RequestError for what is none, or of another version."""
    found = read_document(text, Order, name=name)
    if found.schema != SCHEMA:
        raise RequestError(f"{name} is a {found.schema}; this kimideploy reads {SCHEMA}")
    return found


def overlay(folders: tuple[Path, ...]) -> tuple[tuple[str, str], ...]:
    """Return the profiles in *folders* as an order carries them; a later folder wins."""
    files: dict[str, Path] = {}
    for folder in folders:
        files |= profile_files(folder)
    return tuple((name, path.read_text(encoding="utf-8")) for name, path in sorted(files.items()))


def catalog_of(order: Order) -> Catalog:
    """Return the catalog an order is carried out with: what is shipped, and its own profiles."""
    if not order.profiles:
        return load_catalog(())
    with tempfile.TemporaryDirectory(prefix="kimideploy-profiles-") as name:
        folder = Path(name)
        for place, text in order.profiles:
            path = folder / place
            if shape_of(place) is None or not path.resolve().is_relative_to(folder.resolve()):
                raise RequestError(f"a profile of the order is called {place!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return load_catalog([folder])
