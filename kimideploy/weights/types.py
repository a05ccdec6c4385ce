"""What is told of weights on this machine: a pull foreseen, the store's folders, their speed."""

from __future__ import annotations

from typing import Literal

from kimideploy.facts.filesystems import Kind
from kimideploy.facts.types import Strict
from kimideploy.planning.types import CodePin

#: where a file is before a pull: proved in its folder, begun, on this machine, or nowhere here
Whereabouts = Literal["here", "begun", "to take over", "to fetch"]


class Foreseen(Strict, frozen=True):
    """One file of a pull that has not been done; `left` are bytes that would come over the wire."""

    path: str
    size: int
    digest: str
    state: Whereabouts
    left: int = 0


class Forecast(Strict, frozen=True):
    """What a pull would do. `short` are bytes that the disk lacks, 0 when all fits."""

    repo: str
    revision: str
    folder: str
    files: tuple[Foreseen, ...]
    bytes: int
    fetch: int
    free: int
    short: int
    #: files of code among them, which an engine would run
    code: tuple[str, ...] = ()
    schema: str = "kimideploy.forecast/1"


class Load(Strict, frozen=True):
    """How fast a folder can be read: its file system, the rate if it was measured, what follows."""

    filesystem: str | None
    kind: Kind
    #: bytes per second, read from the disk itself and in sequence
    rate: float | None = None
    #: until all weights are read at that rate
    seconds: float | None = None
    notes: tuple[str, ...] = ()


class Entry(Strict, frozen=True):
    """A folder of weights in the store."""

    repo: str
    revision: str
    folder: str
    complete: bool
    files: int
    bytes: int
    #: what of `bytes` is here and proved, or claimed by a pull that has not ended
    have: int
    #: what it takes on the disk; a pull takes all of its room when it begins
    disk: int
    quant: str | None = None
    #: someone pulls into it right now
    busy: bool = False
    code: tuple[CodePin, ...] = ()
    #: names that the code imports, by file
    imports: tuple[tuple[str, tuple[str, ...]], ...] = ()
    load: Load | None = None


class Listing(Strict, frozen=True):
    """All that the store holds."""

    root: str
    entries: tuple[Entry, ...]
    free: int | None
    #: folders that can't be told of, and why
    unreadable: tuple[str, ...] = ()
    schema: str = "kimideploy.listing/1"
