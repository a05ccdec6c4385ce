"""What happens while a plan is served: typed events, one JSON object each.

Sizes are bytes, times are seconds; None is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from kimideploy.conformance.verdict import Check
from kimideploy.weights import events as weights

Outcome = Literal["pass", "warn", "fail", "skipped"]


def _kebab(name: str) -> str:
    return name.lower()


#: what takes the place of weights and GPUs: a stand-in, or the real vLLM with the nano Kimi
Rehearsal = Literal["stand-in", "vllm"]


class _Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag=_kebab
):
    """Base of all events."""


class Planned(_Event, frozen=True, kw_only=True):
    """What is going to be served, and whether it is only rehearsed."""

    model: str
    candidate: str
    rehearsal: Rehearsal | None = None


class Noted(_Event, frozen=True, kw_only=True):
    """Something the operator should know before it goes on."""

    text: str


class Checked(_Event, frozen=True, kw_only=True):
    """One thing that was looked at before the launch."""

    #: a check of the doctor, or access, disk
    name: str
    outcome: Outcome
    evidence: str
    fix: str | None = None


class Started(_Event, frozen=True, kw_only=True):
    """The engine's process runs; its output goes to the file `log`."""

    pid: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    log: str


class Said(_Event, frozen=True, kw_only=True):
    """A line of the engine's log."""

    line: str


class Progress(_Event, frozen=True, kw_only=True):
    """The engine entered `stage`, or got on with it; `rate` is per second, `eta` seconds left."""

    stage: str
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    eta: float | None = None


class Ready(_Event, frozen=True, kw_only=True):
    """The engine answers and names the model, `seconds` after its start."""

    url: str
    model: str
    seconds: float


class Asking(_Event, frozen=True, kw_only=True):
    """A request of conformance is under way; `pieces` of its answer have come."""

    request: str
    pieces: int = 0


class Judged(_Event, frozen=True, kw_only=True):
    """One check of conformance."""

    check: Check


class Serving(_Event, frozen=True, kw_only=True):
    """The endpoint has proved itself. `reasoning_field` is where it puts its thoughts."""

    url: str
    model: str
    reasoning_field: str
    snippet: str


class Died(_Event, frozen=True, kw_only=True):
    """The engine ended unasked or never became ready: its last lines, and what they mean."""

    how: str
    log: str
    lines: tuple[str, ...]
    stage: str | None = None
    cause: str | None = None
    fix: str | None = None
    link: str | None = None


class Stopping(_Event, frozen=True, kw_only=True):
    """The engine is being ended; `left behind` are workers of one that ended by itself."""

    why: Literal["interrupted", "done", "left behind"]


class Stopped(_Event, frozen=True, kw_only=True):
    """No process of the engine is left but `left`; `killed` did not end when asked."""

    killed: tuple[int, ...] = ()
    left: tuple[int, ...] = ()


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step would do, or did: a sentence, and the difference of a file where there is one."""

    what: str
    diff: str | None = None


class Began(_Event, frozen=True, kw_only=True):
    """A change of a host has begun: which run, what for, by whom."""

    run: str
    what: str
    who: str
    host: str


class Stepped(_Event, frozen=True, kw_only=True):
    """A step was looked at, is under way, or has ended."""

    step: str
    state: Literal["unchanged", "would", "doing", "done", "failed", "undone"]
    changes: tuple[Change, ...] = ()


class Awaiting(_Event, frozen=True, kw_only=True):
    """This node is well; the word that all `nodes` are is awaited until `until` (1970 s)."""

    run: str
    until: float
    nodes: int


class Ended(_Event, frozen=True, kw_only=True):
    """A change of a host has ended. `rolled back` names the release that serves now.

    vanished: its process is gone without a word. `code` is the exit code of this answer.
    """

    result: Literal["done", "unchanged", "failed", "rolled-back", "vanished"]
    code: int = 0
    release: int | None = None
    serving: int | None = None
    url: str | None = None
    #: the folders of weights that are here, where only engine and weights were asked for
    weights: tuple[str, ...] = ()
    message: str | None = None
    hint: str | None = None


Event = (
    weights.Event
    | Began
    | Stepped
    | Awaiting
    | Ended
    | Planned
    | Noted
    | Checked
    | Started
    | Said
    | Progress
    | Ready
    | Asking
    | Judged
    | Serving
    | Died
    | Stopping
    | Stopped
)

#: what takes events as they come
Tell = Callable[[Event], None]
