"""What `serve` shows: a live view on a terminal, plain lines in a pipe, JSON lines for programs.

The endpoint's URL goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kimideploy.apply.events import (
    Asking,
    Awaiting,
    Began,
    Checked,
    Died,
    Event,
    Judged,
    Noted,
    Planned,
    Progress,
    Ready,
    Said,
    Serving,
    Started,
    Stepped,
    Stopped,
    Stopping,
    Tell,
)
from kimideploy.views.amounts import span
from kimideploy.views.pull import Lines
from kimideploy.views.terminal import tame
from kimideploy.weights.events import Event as WeightsEvent

_MARKS = {
    "pass": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "red"),
    "skipped": ("–", "dim"),
    "not-applicable": ("–", "dim"),
}
#: steps that tell their own lines
_SPOKEN = ("checks", "ready", "smoke checks")
_NAME = 20
_BAR = 22
#: a line in a pipe for each quarter of a stage, and at least this often in seconds
_PARTS, _OFTEN = 4, 30.0
_REHEARSAL = {
    "stand-in": "A rehearsal: a stand-in takes the engine's place; no GPU, no weights.",
    "vllm": "A rehearsal: the real vLLM on this CPU, with the nano Kimi (2 M parameters).",
}
_WHY = {
    "interrupted": "ending the engine; Ctrl-C again to kill it",
    "done": "ending the engine",
    "left behind": "ending what the engine left behind",
}


@contextmanager
def shown(out: Console, err: Console, *, as_json: bool) -> Iterator[Tell]:
    """Yield what takes the events and shows them."""
    if as_json:
        yield _as_json
    elif err.is_terminal:
        view = _Live(out, err)
        with view.live:
            yield view.take
    else:
        yield _Plain(out, err).take


def _as_json(event: Event) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def shown_here(out: Console, err: Console) -> Iterator[Tell]:
    """Yield what shows the change of one host: its steps, and the weights and the load in them."""
    pull = Lines(err, err)
    with shown(out, err, as_json=False) as tell:

        def take(event: Event) -> None:
            if isinstance(event, WeightsEvent):
                pull.take(event)
            else:
                tell(event)

        yield take


def one_line(event: Event) -> str:
    """Return *event* in one line; nothing for what is not worth one."""
    match event:
        case Progress():
            return f"{event.stage} {_far(event)}".rstrip()
        case Awaiting():
            return "well; waiting for the other nodes"
        case _:
            return "; ".join(f"{row.name}: {row.said}" for row in _told(event) if row.name)


class _Plain:
    """One line for each thing that happens; a stage is told in quarters."""

    def __init__(self, out: Console, err: Console) -> None:
        self.out, self.err = out, err
        self._told: tuple[str, int, float] = ("", 0, 0.0)

    def take(self, event: Event) -> None:
        """Show *event*, if it is worth a line."""
        match event:
            case Progress():
                self.progress(event)
            case Asking(request=request, pieces=pieces):
                if pieces == 0:
                    self.line("asking", request)
            case Planned():
                self.planned(event)
            case Serving():
                self.serving(event)
            case Died():
                self.died(event)
            case Said():
                pass
            case _:
                for row in _told(event):
                    self.show(row)

    def show(self, row: _Row) -> None:
        """Show one line; on a terminal its text stays in its column."""
        if self.err.is_terminal:
            self.err.print(row.grid())
        else:
            self.err.print(row.text(), soft_wrap=True)

    def line(self, name: str, text: str) -> None:
        """Show one line that is neither good nor bad."""
        self.show(_Row("·", "dim", name, text))

    def planned(self, event: Planned) -> None:
        """Show what is going to be served."""
        self.err.print(Text.assemble((event.model, "bold"), f"  {event.candidate}"))
        if event.rehearsal is not None:
            self.err.print(Text(_REHEARSAL[event.rehearsal], style="cyan"))
        self.err.print()

    def died(self, event: Died) -> None:
        """Show the last lines of the log, and where more is told; the error says the rest."""
        self.err.print(Text(f"\nthe last lines of {event.log}:\n"), soft_wrap=True)
        for line in event.lines:
            self.err.print(Text(tame(f"    {line}")), soft_wrap=True)
        self.err.print()
        if event.link is not None:
            self.show(_Row("·", "dim", "known", event.link))

    def progress(self, event: Progress) -> None:
        """Show how far the stage is, unless that was shown just now."""
        stage, part, when = self._told
        now = time.monotonic()
        reached = _PARTS * (event.done or 0) // event.total if event.total else 0
        if event.stage == stage and reached <= part and now - when < _OFTEN:
            return
        self._told = (event.stage, reached, now)
        self.line(event.stage, _far(event))

    def serving(self, event: Serving) -> None:
        """Show the endpoint, and a client for it."""
        line = Text.assemble(
            (f"{event.url}/v1", "bold green"), f"  serves {event.model}; a client:"
        )
        self.err.print(Text(), line, "", sep="\n", soft_wrap=True)
        self.err.print(_program(event.snippet) if self.err.is_terminal else Text(event.snippet))
        if not self.out.is_terminal:
            self.out.print(f"{event.url}/v1", highlight=False, soft_wrap=True)


class _Live(_Plain):
    """What is done stays as lines; below them the stage under way and the log's last line."""

    def __init__(self, out: Console, err: Console) -> None:
        super().__init__(out, err)
        self.live = Live(console=err, transient=True, refresh_per_second=10)
        self._stage: Progress | None = None
        self._since = 0.0
        self._last = ""

    def take(self, event: Event) -> None:  # noqa: C901, PLR0912  one case an event
        """Show *event*, and let the live part follow."""
        match event:
            case Said(line=line):
                self._last = line
            case Progress(stage=stage):
                if self._stage is not None and self._stage.stage != stage:
                    self._finish()
                if self._stage is None:
                    self._since = time.monotonic()
                self._stage = event
            case Asking(request=request, pieces=pieces):
                self._stage = Progress(stage=f"asking: {request}", done=pieces or None)
            case Serving():
                self.live.stop()
                self.serving(event)
                self._stage = Progress(stage="serving; Ctrl-C ends it")
                self.live.start()
            case Stepped(state="doing"):
                self._stage, self._since = Progress(stage=event.step), time.monotonic()
            case Stepped():
                self._drop()
                super().take(event)
            case Started():
                super().take(event)
                self._stage, self._since = Progress(stage="starting"), time.monotonic()
            case Ready():
                self._finish()
                super().take(event)
            case Died():
                self._drop()
                super().take(event)
            case Judged():
                self._stage = None
                super().take(event)
            case Stopping():
                self._drop()
                self._stage = Progress(stage=_WHY[event.why])
            case Stopped():
                self._drop()
                super().take(event)
            case _:
                super().take(event)
        self.live.update(self._now())

    def _drop(self) -> None:
        self._stage, self._last = None, ""

    def _finish(self) -> None:
        # Why not those: what a step of that name has to say comes as lines of its own.
        if self._stage is not None and self._stage.stage not in _SPOKEN:
            count = f"{self._stage.total} " if self._stage.total is not None else ""
            seconds = span(time.monotonic() - self._since)
            self.show(_Row("✓", "green", self._stage.stage, f"{count}in {seconds}"))
        self._drop()

    def _now(self) -> RenderableType:
        if self._stage is None:
            return Text()
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2, justify="right")
        table.add_column(min_width=_NAME, no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        stage = self._stage
        bar: RenderableType = Text()
        if stage.total:
            bar = ProgressBar(total=stage.total, completed=stage.done or 0, width=_BAR)
        table.add_row(Spinner("dots", style="cyan"), tame(stage.stage), bar, _far(stage))
        last = Text(tame(f"    {self._last}"), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(table, last) if self._last else table


@dataclass(frozen=True, slots=True)
class _Row:
    """A mark, a name and what there is to say."""

    mark: str
    style: str
    name: str
    said: str

    def text(self) -> Text:
        """One line, however long."""
        rest = tame(f" {self.name:<{_NAME}} {self.said}".rstrip())
        return Text.assemble("  ", (self.mark, self.style), rest)

    def grid(self) -> Table:
        """The same in columns."""
        table = Table.grid(padding=(0, 1))
        table.add_column(width=3, justify="right", style=self.style)
        table.add_column(width=_NAME, style="bold" if self.style == "red" else "")
        style = self.style if self.style in ("dim", "yellow") else ""
        table.add_column(style=style, overflow="fold")
        table.add_row(self.mark, Text(tame(self.name)), Text(tame(self.said)))
        return table


def _told(event: Event) -> list[_Row]:  # noqa: C901, PLR0911  one case an event
    """The lines of an event that looks the same everywhere."""
    match event:
        case Noted(text=text):
            return [_Row("!", "yellow", "note", text)]
        case Checked(name=name, outcome=outcome, evidence=evidence, fix=fix):
            # Why not the fix of a failure: it is the error's hint, said at the end.
            return [
                _Row(*_MARKS[outcome], name, evidence),
                *_help(fix if outcome == "warn" else None),
            ]
        case Judged(check=check):
            row = _Row(*_MARKS[check.outcome], check.name, check.evidence)
            return [row, *_help(check.cause), *_help(check.fix), *_help(check.link)]
        case Started(pid=pid, log=log):
            return [_Row("✓", "green", "started", f"pid {pid}, logging to {log}")]
        case Ready(seconds=seconds, model=model):
            return [_Row("✓", "green", "ready", f"{model} after {span(seconds)}")]
        case Stopping(why=why):
            return [_Row("·", "dim", "ending", _WHY[why])]
        case Stopped():
            return [_ended(event)]
        case Began(what=what, who=who):
            return [_Row("·", "dim", "change", f"{what}, asked by {who}")]
        case Stepped():
            return _stepped(event)
        case Awaiting():
            return [_Row("·", "dim", "well", "waiting for the word that the other nodes are, too")]
        case _:
            return []


def _stepped(event: Stepped) -> list[_Row]:
    what = "; ".join(change.what for change in event.changes)
    match event.state:
        case "done" if event.step in _SPOKEN:
            return []
        case "done":
            return [_Row("✓", "green", event.step, what)]
        case "failed":
            return [_Row("✗", "red", event.step, what or "failed")]
        case "undone":
            return [_Row("!", "yellow", event.step, "taken back")]
        case "unchanged":
            return [_Row("–", "dim", event.step, "as it should be")]
        case "would" | "doing":
            return []


def _ended(event: Stopped) -> _Row:
    if event.left:
        pids = ", ".join(map(str, event.left))
        return _Row("✗", "red", "engine", f"these of its processes can't be killed: {pids}")
    if event.killed:
        said = f"ended; {len(event.killed)} of its processes had to be killed"
        return _Row("!", "yellow", "engine", said)
    return _Row("✓", "green", "engine", "ended, with all it started")


def _help(text: str | None) -> list[_Row]:
    return [_Row("", "yellow", "", text)] if text is not None else []


def _far(event: Progress) -> str:
    words = []
    if event.total is not None:
        words.append(f"{event.done}/{event.total}")
    elif event.done is not None:
        words.append(str(event.done))
    if event.rate is not None:
        words.append(f"{event.rate:.1f}/s" if event.rate >= 1 else f"{1 / event.rate:.1f} s each")
    if event.eta is not None and event.done != event.total:
        words.append(f"{span(event.eta)} left")
    return "  ".join(words)


def _program(text: str) -> RenderableType:
    from rich.padding import Padding  # noqa: PLC0415
    from rich.syntax import Syntax  # noqa: PLC0415

    code = Syntax(text, "python", theme="ansi_dark", background_color="default")
    return Padding(code, (0, 0, 0, 4))
