"""What happens while weights are pulled or verified: typed events, one JSON object each.

Sizes are bytes, times are seconds; None is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Stage = Literal["taking over", "fetching", "hashing", "writing"]
How = Literal["reflink", "hard link", "copy"]


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


class _Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag=_kebab
):
    """Base of all events."""


class Resolved(_Event, frozen=True, kw_only=True):
    """What is going to be there: the commit, its files, and the folder they end in."""

    repo: str
    revision: str
    files: int
    bytes: int
    folder: str


class Told(_Event, frozen=True, kw_only=True):
    """Something the operator should know."""

    text: str


class Adopted(_Event, frozen=True, kw_only=True):
    """A file that was on this machine already, taken over and proved."""

    path: str
    bytes: int
    how: How
    of: str


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """One file that is being fetched or hashed; `kept` of `done` bytes an earlier run left."""

    path: str
    done: int
    total: int
    kept: int = 0
    rate: float | None = None


class Moved(_Event, frozen=True, kw_only=True):
    """How far it is; `rate` is bytes per second over the last seconds, `eta` seconds left.

    `kept` of `done` bytes an earlier run left: they say nothing of the rate.
    """

    stage: Stage
    done: int
    total: int
    kept: int = 0
    files_done: int
    files: int
    rate: float | None = None
    eta: float | None = None
    active: tuple[InFlight, ...] = ()


class Retried(_Event, frozen=True, kw_only=True):
    """A try failed; the next comes after `wait` seconds."""

    path: str
    why: str
    wait: float


class Arrived(_Event, frozen=True, kw_only=True):
    """A file is whole, and its bytes are the hub's."""

    path: str
    bytes: int


class Damaged(_Event, frozen=True, kw_only=True):
    """A file that is not what the hub names; `mended` says that it is fetched again."""

    path: str
    why: str
    mended: bool = False


class Published(_Event, frozen=True, kw_only=True):
    """The folder is whole and can be served. `fetched` came over the wire, `kept` was there."""

    folder: str
    revision: str
    files: int
    bytes: int
    fetched: int
    kept: int
    seconds: float


class Verified(_Event, frozen=True, kw_only=True):
    """Every file was looked at; `hashed` bytes were read, the rest had not changed since."""

    repo: str
    revision: str
    folder: str
    files: int
    bytes: int
    hashed: int
    seconds: float
    ok: bool


Event = Resolved | Told | Adopted | Moved | Retried | Arrived | Damaged | Published | Verified
#: what hears of them
Tell = Callable[[Event], None]
