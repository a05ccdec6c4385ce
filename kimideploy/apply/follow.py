"""What an engine's log says: lines, progress by stage, and the known ways to die. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kimideploy.apply.events import Progress
from kimideploy.catalog.failures import Failure
from kimideploy.catalog.types import LogPatterns

#: characters of one line that are looked at; engines print whole configurations on one line
LONGEST = 4000
#: lines kept to show when the engine dies
TAIL = 60
#: kinds of lines remembered, to tell news from the same words again
_KINDS = 512
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_END = re.compile(rb"[\r\n]+")


def plain(raw: bytes) -> str:
    """Return *raw* as one line of text: no colours, no control characters, not too long."""
    text = _ANSI.sub("", raw[: 4 * LONGEST].decode("utf-8", "replace"))
    return _CONTROL.sub("", text).rstrip()[:LONGEST]


class Lines:
    """Cuts what comes from a log into lines; a progress bar that is redrawn is a line each time."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield every line that *chunk* completes, empty ones left out."""
        *whole, rest = _END.split(self._rest + chunk)
        # Why: a line without an end must not grow without one either.
        self._rest = rest[: 4 * LONGEST]
        for raw in whole:
            line = plain(raw)
            if line:
                yield line

    @property
    def rest(self) -> str:
        """What has come of the line that is not ended yet; bars are often left so."""
        return plain(self._rest)


@dataclass
class Story:
    """What the log has told so far.

    `moved` counts the lines that brought news: a stage that got on, or words not seen before. A
    line repeated while an engine hangs is none.
    """

    patterns: LogPatterns
    #: the known failures it may show
    known: Sequence[Failure] = ()
    progress: Progress | None = None
    moved: int = 0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    _last: str | None = None
    _failure: int | None = None
    _since: tuple[float, int] | None = None
    _kinds: deque[str] = field(default_factory=lambda: deque(maxlen=_KINDS))

    @cached_property
    def _stages(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(stage.stage, re.compile(stage.pattern)) for stage in self.patterns.stages]

    @cached_property
    def _failures(self) -> list[re.Pattern[str]]:
        return [re.compile(failure.pattern) for failure in self.known]

    @property
    def stage(self) -> str | None:
        """The stage the engine is in."""
        return self.progress.stage if self.progress is not None else None

    @property
    def failure(self) -> Failure | None:
        """The known cause the log shows; of several, the one the profile names first."""
        return self.known[self._failure] if self._failure is not None else None

    def read(self, line: str, now: float) -> Progress | None:
        """Take *line* in, whole, at *now*; return the progress it shows, if any."""
        kind = _DIGITS.sub("0", line)
        if self.tail and kind == self._last:
            # Why: a bar that is redrawn would push out what came before it.
            self.tail.pop()
        self.tail.append(line)
        self._last = kind
        if kind not in self._kinds:
            self._kinds.append(kind)
            self.moved += 1
        for index, pattern in enumerate(self._failures[: self._failure]):
            if pattern.search(line):
                self._failure = index
                break
        return self.glance(line, now)

    def glance(self, line: str, now: float) -> Progress | None:
        """Return the progress *line* shows, if it is news; the line may be unfinished."""
        for stage, pattern in self._stages:
            found = pattern.search(line)
            if found is not None:
                return self._on(stage, found.groupdict(), now)
        return None

    def _on(self, stage: str, groups: dict[str, str | None], now: float) -> Progress | None:
        done = _number(groups.get("done"))
        total = _number(groups.get("total")) if done is not None else None
        if stage != self.stage:
            self._since = (now, done) if done is not None else None
        elif done is None or (self.progress is not None and done == self.progress.done):
            return None
        elif self._since is None or done < self._since[1]:
            self._since = (now, done)
        rate, eta = self._pace(done, total, now)
        self.progress = Progress(stage=stage, done=done, total=total, rate=rate, eta=eta)
        self.moved += 1
        return self.progress

    def _pace(
        self, done: int | None, total: int | None, now: float
    ) -> tuple[float | None, float | None]:
        if self._since is None or done is None:
            return None, None
        began, first = self._since
        if done <= first or now <= began:
            return None, None
        rate = (done - first) / (now - began)
        return rate, (total - done) / rate if total is not None and total >= done else None


def _number(text: str | None) -> int | None:
    # Why nine: a longer number is no count of anything an engine loads.
    return int(text) if text is not None and text.isdecimal() and len(text) <= 9 else None  # noqa: PLR2004
