"""What a pull shows: bars on a terminal, plain lines in a pipe, JSON lines for programs.

The folder goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kimideploy.quantities import decimal
from kimideploy.views.amounts import per_second, span
from kimideploy.views.terminal import tame
from kimideploy.weights.events import (
    Adopted,
    Arrived,
    Damaged,
    Event,
    Moved,
    Published,
    Resolved,
    Retried,
    Tell,
    Told,
    Verified,
)

_BAR, _NAME, _LEAST_BAR = 20, 34, 6
#: columns below which a file has no bar of its own
_NARROW = 66
#: files that are shown under way
_SHOWN = 8
#: in a pipe: a line for each twentieth, but no more and no less often than this in seconds
_PARTS, _SELDOM, _OFTEN = 20, 2.0, 30.0


@contextmanager
def shown(out: Console, err: Console, *, as_json: bool) -> Iterator[Tell]:
    """Yield what takes the events and shows them.

    A reader who has gone is KeyboardInterrupt: the work is not done, and nobody looks on.
    """
    try:
        if as_json:
            yield as_json_line
        elif err.is_terminal and not err.is_dumb_terminal:
            view = Bars(out, err)
            with view.live:
                try:
                    yield view.take
                finally:
                    # Why: of bars that are still there when it ends, a line is left behind.
                    view.live.update(Text(), refresh=True)
        else:
            yield Lines(out, err).take
    except BrokenPipeError as error:
        raise KeyboardInterrupt from error


def as_json_line(event: Event) -> None:
    """Write *event* as one line of JSON to stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


class Lines:
    """One line for each thing that happens; progress is told now and then."""

    def __init__(self, out: Console, err: Console) -> None:
        self.out, self.err = out, err
        self._told: tuple[str, int, float] = ("", -1, 0.0)
        self._giver = ""

    def take(self, event: Event) -> None:  # noqa: C901  one case an event
        """Show *event*, if it is worth a line."""
        match event:
            case Moved():
                self.moved(event)
            case Resolved():
                self.say("·", "dim", f"{event.repo} at {event.revision[:12]}")
                many = f"{event.files:,} files, {decimal(event.bytes)}, into {event.folder}"
                self.say("·", "dim", many)
            case Told(text=text):
                self.say("!", "yellow", text)
            case Adopted():
                self.adopted(event)
            case Retried(path=path, why=why, wait=wait):
                self.say("!", "yellow", f"{path}: {why}; again in {span(wait)}")
            case Arrived(path=path, bytes=size):
                self.say("✓", "green", f"{path}  {decimal(size)}")
            case Damaged(path=path, why=why, mended=mended):
                again = "; it is fetched again" if mended else ""
                self.say(
                    "!" if mended else "✗", "yellow" if mended else "red", f"{path}: {why}{again}"
                )
            case Published():
                came = f"{decimal(event.fetched)} fetched"
                if event.kept:
                    came += f", {decimal(event.kept)} were here"
                self.say(
                    "✓", "green", f"{event.files:,} files proved: {came}, {span(event.seconds)}"
                )
                if not self.out.is_terminal or not self.err.is_terminal:
                    self.out.print(event.folder, soft_wrap=True)
                else:
                    self.err.print(Text(f"\n{event.folder}", style="bold"), soft_wrap=True)
            case Verified():
                self.verified(event)

    def adopted(self, event: Adopted) -> None:
        """Show a file that was taken over; the folder it was in is said once."""
        giver = event.of.rpartition("/")[0]
        if giver != self._giver:
            self._giver = giver
            self.say("·", "dim", f"taking over from {giver}")
        self.say("✓", "green", f"{event.path}  {decimal(event.bytes)}, {event.how}")

    def verified(self, event: Verified) -> None:
        """Show the end of a verification."""
        rate = (
            f", {decimal(event.hashed / event.seconds)}/s" if event.hashed and event.seconds else ""
        )
        read = (
            f"{decimal(event.hashed)} read{rate}" if event.hashed else "unchanged since last proved"
        )
        name = f"{event.repo} {event.revision[:12]}"
        if event.ok:
            size = f"{event.files:,} files, {decimal(event.bytes)}"
            self.say("✓", "green", f"{name}: {size}, all right ({read})")
        else:
            self.say("✗", "red", f"{name} is not what it should be ({read}): {event.folder}")

    def say(self, mark: str, style: str, text: str) -> None:
        """Show one line, however long; on a terminal it stays in its column."""
        if not self.err.is_terminal:
            self.err.print(Text.assemble("  ", (mark, style), f" {tame(text)}"), soft_wrap=True)
            return
        table = Table.grid(padding=(0, 1))
        table.add_column(width=3, justify="right", style=style)
        table.add_column(overflow="fold", style=style if style == "yellow" else "")
        table.add_row(mark, Text(tame(text)))
        self.err.print(table)

    def moved(self, event: Moved) -> None:
        """Show how far it is, unless that was shown just now."""
        stage, part, when = self._told
        now = time.monotonic()
        reached = _PARTS * event.done // event.total if event.total else 0
        wait = _SELDOM if reached > part else _OFTEN
        if event.stage == stage and now - when < wait:
            return
        # Why: what is over at once is not worth a line.
        if event.stage != stage and event.done == event.total:
            return
        self._told = (event.stage, reached, now)
        self.say("·", "dim", f"{event.stage}  {far(event)}")


class Bars(Lines):
    """What is done stays as lines; below them the files under way and the whole."""

    def __init__(self, out: Console, err: Console) -> None:
        super().__init__(out, err)
        self.live = Live(console=err, transient=True, refresh_per_second=8)

    def take(self, event: Event) -> None:
        """Show *event*, and let the bars follow."""
        match event:
            case Moved():
                self.live.update(_bars(event, self.err.width))
            case Published() | Verified():
                self.live.update(Text())
                super().take(event)
            case _:
                super().take(event)


def _bars(event: Moved, width: int) -> RenderableType:
    bars = width >= _NARROW
    room = max(min(width - (_NARROW - 24 if bars else 21), _NAME), 8)
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2)
    table.add_column(width=room, no_wrap=True)
    if bars:
        table.add_column(width=_BAR - 6)
    table.add_column(width=5, justify="right")
    table.add_column(no_wrap=True, justify="right")
    for file in event.active[:_SHOWN]:
        bar = ProgressBar(total=max(file.total, 1), completed=file.done, width=_BAR - 6)
        share = f"{file.done / file.total:.0%}" if file.total else ""
        name = Text(shortened(tame(file.path), room))
        table.add_row("", name, *([bar] if bars else []), share, per_second(file.rate))
    more = len(event.active) - _SHOWN
    if more > 0:
        table.add_row("", Text(f"and {more} more", style="dim"))
    told = next((text for text in _shorter(event) if len(text) <= width - 4), "")
    size = min(width - len(told) - 5, _BAR)
    line = Table.grid(padding=(0, 1))
    line.add_column(width=2)
    whole = ProgressBar(total=max(event.total, 1), completed=event.done, width=size)
    line.add_row("", *([whole] if size >= _LEAST_BAR else []), Text(told, style="bold"))
    return Group(table, line)


def shortened(name: str, room: int) -> str:
    """Return *name* in *room* columns: the end goes first, then what lies before the number."""
    if len(name) <= room:
        return name
    plain = name.removesuffix(".safetensors").removesuffix(".gguf")
    return plain if len(plain) <= room else f"…{plain[len(plain) - room + 1 :]}"


def _shorter(event: Moved) -> Iterator[str]:
    """Yield how far it is, in words that become fewer; what is left to wait is in all of them."""
    done, files, rate, left = (
        f"{decimal(event.done)} of {decimal(event.total)}",
        f"{event.files_done}/{event.files} files",
        per_second(event.rate),
        f"{span(event.eta)} left" if event.eta is not None and event.done < event.total else "",
    )
    share = f"{event.done / event.total:.0%}" if event.total else ""
    for words in (
        (done, files, rate, left),
        (done, rate, left),
        (share, rate, left),
        (share, left),
    ):
        yield "  ".join(word for word in words if word)


def far(event: Moved) -> str:
    """Return how far it is: bytes, files, rate and what is left."""
    return next(_shorter(event))
