"""What a host answers when it is asked: values that JSON can hold, and nothing that acts."""

from __future__ import annotations

from typing import Literal

from kimideploy.apply.events import Change, Died, Ended, Progress
from kimideploy.facts.types import Strict
from kimideploy.weights.manifest import Manifest


class Holder(Strict, frozen=True, omit_defaults=True):
    """Who holds a host, since when and for what; `until` is when a hold expires, 1970 seconds."""

    who: str
    why: str
    since: float
    pid: int | None = None
    run: str | None = None
    until: float | None = None


class Pending(Strict, frozen=True):
    """A release on trial, the one to go back to, and until when someone must confirm it."""

    release: int
    previous: int | None
    run: str
    until: float | None = None
    #: the smoke checks have passed, only the confirmation is awaited
    proved: bool = False


class Report(Strict, frozen=True, omit_defaults=True):
    """How the engine of a release stands. Times are seconds since 1970.

    `moved` grows with every line of its log that brought news. `token` is when a token came last.
    """

    release: int
    pid: int
    state: Literal["loading", "ready", "ended"]
    since: float
    moved: int = 0
    progress: Progress | None = None
    line: str | None = None
    token: float | None = None
    died: Died | None = None
    why: str | None = None


Action = Literal[
    "apply", "step", "rollback", "stop", "start", "restart", "destroy", "lock", "confirm", "mend"
]
Result = Literal["began", "done", "failed", "undone", "unchanged"]


class Entry(Strict, frozen=True, omit_defaults=True):
    """One line. `at` is seconds since 1970, `who` is "user@machine"."""

    at: float
    who: str
    action: Action
    result: Result
    run: str | None = None
    release: int | None = None
    step: str | None = None
    said: str | None = None


class Looked(Strict, frozen=True):
    """A step and what it would change."""

    step: str
    changes: tuple[Change, ...]


class Begun(Strict, frozen=True, omit_defaults=True):
    """What became of an order: the run that carries it out, or that nothing was to be done."""

    looked: tuple[Looked, ...] = ()
    run: str | None = None
    ended: Ended | None = None


class Shared(Strict, frozen=True):
    """Where other nodes get this host's weights, and what proves them. The token is a secret."""

    id: str
    url: str
    token: str
    manifests: tuple[Manifest, ...]


class Past(Strict, frozen=True, omit_defaults=True):
    """A release of this host, as `history` lists it."""

    number: int
    at: float
    who: str
    model: str
    candidate: str
    engine: str
    proved: bool
    current: bool
    digest: str


class History(Strict, frozen=True):
    """The releases of a host, the newest first, and its journal."""

    releases: tuple[Past, ...]
    entries: tuple[Entry, ...]


class Trouble(Strict, frozen=True, omit_defaults=True):
    """Something the journal shows: the line, and what it means where that is known."""

    line: str
    cause: str | None = None
    fix: str | None = None
    link: str | None = None


class GpuUse(Strict, frozen=True, omit_defaults=True):
    """Bytes of a GPU; None is unknown."""

    index: int
    name: str | None = None
    used: int | None = None
    total: int | None = None
    error: str | None = None


class Load(Strict, frozen=True, omit_defaults=True):
    """What the endpoint counts: requests, and the share of the KV cache that is in use."""

    running: float | None = None
    waiting: float | None = None
    cache: float | None = None


class Status(Strict, frozen=True, omit_defaults=True):
    """How a host stands. `state` and `since` are systemd's, `drift` what was changed by hand."""

    host: str
    scope: str
    state: str
    sub: str = ""
    since: str = ""
    restarts: int = 0
    enabled: bool = False
    result: str = ""
    release: int | None = None
    made: float | None = None
    who: str | None = None
    model: str | None = None
    candidate: str | None = None
    engine: str | None = None
    url: str | None = None
    report: Report | None = None
    pending: Pending | None = None
    holder: Holder | None = None
    run: str | None = None
    drift: tuple[str, ...] = ()
    gpus: tuple[GpuUse, ...] = ()
    load: Load | None = None
    troubles: tuple[Trouble, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether the engine is up and proved."""
        return self.state == "active" and self.pending is None
