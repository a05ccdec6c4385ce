"""What is shown of hosts: changes as they go on, how they stand, their past.

One host is shown step by step; several are a table of hosts and where each of them is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kimideploy.apply.answers import History, Holder, Looked, Status
from kimideploy.apply.events import (
    Awaiting,
    Began,
    Change,
    Ended,
    Event,
    Judged,
    Noted,
    Progress,
    Said,
    Stepped,
)
from kimideploy.errors import KimiError
from kimideploy.quantities import GIB
from kimideploy.views.amounts import span
from kimideploy.views.console import err, out
from kimideploy.views.serve import one_line, shown_here
from kimideploy.views.terminal import tame

_STATES = {
    "active": "green", "activating": "yellow", "failed": "red", "absent": "dim",
    "inactive": "yellow", "deactivating": "yellow",
}  # fmt: skip
_MOST = 6


class Board(Protocol):
    """What takes the events of hosts."""

    def take(self, name: str, event: Event) -> None:
        """Show what happened on the host *name*."""

    def note(self, name: str, text: str) -> None:
        """Show something that is said of it from here."""

    def ended(self, name: str, found: Ended | KimiError) -> None:
        """Show how it ended there."""


@contextmanager
def shown(names: Sequence[str], *, as_json: bool) -> Iterator[Board]:
    """Yield the board for changes of the hosts *names*."""
    if as_json:
        yield _Json()
    elif len(names) == 1:
        with shown_here(out, err) as tell:
            yield _One(tell)
    elif err.is_terminal and not err.is_dumb_terminal:
        table = _Table(names)
        with table.live:
            yield table
    else:
        yield _Lines()


class _Json:
    """One JSON object a line, with the host it is about."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, name: str, event: Event) -> None:
        with self._lock:
            line = msgspec.json.encode({"host": name, **msgspec.to_builtins(event)})
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()

    def note(self, name: str, text: str) -> None:
        self.take(name, Noted(text=text))

    def ended(self, name: str, found: Ended | KimiError) -> None:
        if isinstance(found, KimiError):
            found = Ended(
                result="failed", code=found.exit_code, message=found.message, hint=found.hint
            )
        self.take(name, found)


class _One:
    """One host: all that happens, line by line."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def take(self, name: str, event: Event) -> None:  # noqa: ARG002
        self._tell(event)

    def note(self, name: str, text: str) -> None:
        self._tell(Noted(text=f"{name}: {text}"))

    def ended(self, name: str, found: Ended | KimiError) -> None:
        _answer(name, found)


class _Lines:
    """Several hosts in a pipe: one line for each thing that happens, the host in front."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage: dict[str, str] = {}

    def take(self, name: str, event: Event) -> None:
        if isinstance(event, Progress):
            if self._stage.get(name) == event.stage:
                return
            self._stage[name] = event.stage
        text = one_line(event)
        if text:
            self._say(name, text)

    def note(self, name: str, text: str) -> None:
        self._say(name, text)

    def ended(self, name: str, found: Ended | KimiError) -> None:
        _answer(name, found)

    def _say(self, name: str, text: str) -> None:
        with self._lock:
            err.print(Text(tame(f"{name}  {text}")), soft_wrap=True)


class _Table:
    """Several hosts on a terminal: a row each."""

    def __init__(self, names: Sequence[str]) -> None:
        self._rows: dict[str, tuple[str, str, str]] = dict.fromkeys(names, ("·", "", "waiting"))
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self.live = Live(console=err, refresh_per_second=8, get_renderable=self._shown)

    def take(self, name: str, event: Event) -> None:
        mark, step, text = self._rows.get(name, ("·", "", ""))
        match event:
            case Stepped(state="doing", step=now, changes=changes):
                step, text = now, changes[0].what if changes else ""
            case Stepped(state="failed"):
                mark = "✗"
            case Progress() | Judged() | Awaiting() | Began():
                text = one_line(event) or text
            case Said(line=line):
                text = line
            case _:
                return
        with self._lock:
            self._rows[name] = (mark, step, tame(text))

    def note(self, name: str, text: str) -> None:
        with self._lock:
            mark, step, _ = self._rows.get(name, ("·", "", ""))
            self._rows[name] = (mark, step, tame(text))

    def ended(self, name: str, found: Ended | KimiError) -> None:
        good = isinstance(found, Ended) and found.code == 0
        text = found.message if not good else _done(found)
        with self._lock:
            self._rows[name] = ("✓" if good else "✗", self._rows[name][1], tame(text or ""))

    def _shown(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        styles = {"✓": "green", "✗": "red", "·": "cyan"}
        for name, (mark, step, text) in self._rows.items():
            table.add_row(Text(mark, style=styles[mark]), Text(name), Text(step), Text(text))
        return Group(table, Text(span(time.monotonic() - self._since), style="dim"))


def _answer(name: str, found: Ended | KimiError) -> None:
    """Say on stdout where a host serves; its failure is told as the error it is."""
    if isinstance(found, KimiError) or found.code != 0:
        return
    err.print(Text(tame(f"{name}  {_done(found)}")), soft_wrap=True)
    if found.url is not None and name != "this machine":
        port = found.url.rpartition(":")[2]
        tunnel = f"ssh -N -L {port}:127.0.0.1:{port} {name}"
        err.print(Text(f"from here: {tunnel}", style="dim"), soft_wrap=True)
    if found.url is not None:
        out.print(tame(f"{found.url}/v1"), highlight=False, soft_wrap=True)


def _done(found: Ended | KimiError) -> str:
    if isinstance(found, KimiError):
        return found.message
    what = "nothing was to be done" if found.result == "unchanged" else "done"
    if found.weights:
        return f"{what}; engine and weights are here, and what runs is as before"
    return f"{what}; release {found.release} serves" if found.release is not None else what


def looked_lines(name: str, steps: Sequence[Looked]) -> RenderableType:
    """Return what would be done on a host, step by step."""
    if not any(step.changes for step in steps):
        return Text(f"{name}: nothing would be done")
    lines: list[RenderableType] = [Text(f"{name}", style="bold")]
    for step in steps:
        if not step.changes:
            lines.append(Text(f"  – {step.step}: as it should be", style="dim"))
        for change in step.changes:
            lines.append(Text(f"  · {step.step}: {tame(change.what)}"))
            lines += _diff(change)
    return Group(*lines)


def _diff(change: Change) -> list[RenderableType]:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    return [
        Text(f"      {tame(line)}", style=styles.get(line[:1], "dim"))
        for line in (change.diff or "").splitlines()
    ]


def status_table(name: str, one: Status) -> RenderableType:
    """Return how one host stands."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(what: str, text: str, style: str = "") -> None:
        table.add_row(what, Text(tame(text), style=style))

    since = f" since {one.since}" if one.since and one.state == "active" else ""
    again = f", restarted {one.restarts} times by itself" if one.restarts else ""
    row("unit", f"{one.state} ({one.sub}){since}{again}", _STATES.get(one.state, ""))
    if one.release is not None:
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.made or 0))
        row("release", f"{one.release}, made {made} by {one.who}")
        row("model", f"{one.model}  {one.candidate}  {one.engine}")
    if one.url is not None:
        row("endpoint", f"{one.url}/v1")
    if one.pending is not None:
        row("trial", f"release {one.pending.release} is on trial, run {one.pending.run}", "yellow")
    _engine_rows(row, one)
    if one.holder is not None:
        row("lock", holder_line(one.holder), "yellow")
    for way in one.drift:
        row("by hand", way, "yellow")
    for gpu in one.gpus:
        row(f"GPU {gpu.index}", _gpu(gpu), "red" if gpu.error else "")
    for trouble in one.troubles[:_MOST]:
        row("trouble", f"{trouble.cause}: {trouble.fix or trouble.line}", "red")
        if trouble.link:
            row("", trouble.link, "dim")
    return Group(Text(f"{name} ({one.host})" if name != one.host else name, style="bold"), table)


def _engine_rows(row: Any, one: Status) -> None:
    report = one.report
    if report is not None and report.release == one.release:
        if report.state == "loading":
            row("loading", one_line(report.progress) if report.progress else report.line or "…")
        if report.state == "ended" and one.state != "active":
            row("ended", report.why or "", "red")
        if report.token is not None and one.state == "active":
            row("last token", f"{span(max(0.0, time.time() - report.token))} ago")
    load = one.load
    if load is not None and load.running is not None:
        cache = f", KV cache {100 * load.cache:.0f} % full" if load.cache is not None else ""
        row("load", f"{load.running:.0f} running, {load.waiting or 0:.0f} waiting{cache}")


def _gpu(gpu: Any) -> str:
    if gpu.error:
        return f"{gpu.name or ''} {gpu.error}".strip()
    if gpu.used is None or gpu.total is None:
        return gpu.name or "unknown"
    return f"{gpu.name}  {gpu.used / GIB:.1f} of {gpu.total / GIB:.1f} GiB"


def history_table(found: History) -> RenderableType:
    """Return the releases of a host, and the last lines of its journal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("", "release", "made", "by", "model", "engine"):
        table.add_column(name, overflow="fold", header_style="dim")
    for one in found.releases:
        made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.at))
        mark = Text("●", style="green") if one.current else Text("" if one.proved else "✗")
        table.add_row(mark, str(one.number), made, tame(one.who), tame(one.model), tame(one.engine))
    lines = [
        Text(
            f"{time.strftime('%m-%d %H:%M:%S', time.gmtime(entry.at))}  {tame(entry.who)}  "
            f"{entry.step or entry.action}  {entry.result}"
            + (f"  release {entry.release}" if entry.release is not None else "")
            + (f"  {tame(entry.said)}" if entry.said else ""),
            style="red" if entry.result in ("failed", "undone") else "",
        )
        for entry in found.entries
    ]
    return Group(table, Text(), *lines)


def holder_line(holder: Holder | None) -> str:
    """Return who holds a host, in one line."""
    if holder is None:
        return "nobody holds it"
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.since))
    until = ""
    if holder.until is not None:
        until = time.strftime(", until %Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.until))
    return tame(f"{holder.who} since {since}{until}: {holder.why}")


def as_json(value: Any) -> str:
    """Return *value* as indented JSON."""
    data = msgspec.json.encode(value, enc_hook=int)
    return msgspec.json.format(data, indent=2).decode() + "\n"
