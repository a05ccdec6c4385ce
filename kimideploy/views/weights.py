"""How weights on this machine are shown: a pull foreseen, and what the store holds."""

from __future__ import annotations

from collections import Counter

from kimideploy.quantities import decimal
from kimideploy.views.amounts import per_second, span
from kimideploy.views.terminal import Terminal, tame
from kimideploy.weights.types import Entry, Forecast, Listing

_STATES = {
    "here": "here, proved",
    "begun": "begun by an earlier pull",
    "to take over": "on this machine, to be taken over",
    "to fetch": "to fetch",
}


def foreseen(found: Forecast, terminal: Terminal) -> str:
    """Return what `kimideploy pull --dry-run` prints."""
    lines = [
        terminal.paint(f"{found.repo} at {found.revision}", "bold"),
        f"  {len(found.files):,} files, {decimal(found.bytes)}",
    ]
    lines += terminal.wrapped(f"into {found.folder}")
    count: Counter[str] = Counter(file.state for file in found.files)
    size: Counter[str] = Counter()
    for file in found.files:
        size[file.state] += file.size
    for state, words in _STATES.items():
        if count[state]:
            many = f"{count[state]:,} file" + ("s" if count[state] > 1 else "")
            lines.append(f"  {many:>12}  {decimal(size[state]):>9}  {words}")
    lines.append("")
    lines.append(f"  to fetch  {decimal(found.fetch)}; the disk has {decimal(found.free)} free")
    if found.short:
        lines.append(terminal.paint(f"  {decimal(found.short)} short", "red"))
    if found.code:
        lines += terminal.wrapped(f"code an engine would run: {', '.join(found.code)}")
    return terminal.shown(lines)


def listed(found: Listing, terminal: Terminal, *, code: bool) -> str:
    """Return what `kimideploy weights list` prints."""
    free = f", {decimal(found.free)} free" if found.free is not None else ""
    lines = [*terminal.wrapped(f"{found.root}{free}", first="", rest="  ")]
    if not found.entries:
        lines += ["", "  no weights; `kimideploy pull` fetches some"]
    for entry in found.entries:
        lines += ["", *_entry(entry, terminal, code=code)]
    for why in found.unreadable:
        lines += ["", *terminal.wrapped(why, first="  ! ")]
    return terminal.shown(lines)


def _entry(entry: Entry, terminal: Terminal, *, code: bool) -> list[str]:
    quant = f" {entry.quant}" if entry.quant else ""
    lines = [terminal.paint(f"{entry.repo}{quant}", "bold") + f"  {entry.revision[:12]}"]
    if entry.complete:
        lines.append(f"  {entry.files:,} files, {decimal(entry.bytes)}")
    else:
        state = "a pull is under way" if entry.busy else "a pull that has not ended"
        lines.append(
            terminal.paint(f"  {decimal(entry.have)} of {decimal(entry.bytes)}: {state}", "yellow")
        )
    lines += terminal.wrapped(entry.folder)
    if entry.load is not None:
        speed = ""
        if entry.load.rate is not None and entry.load.seconds is not None:
            speed = f", reads {per_second(entry.load.rate)}: {span(entry.load.seconds)} for all"
        lines.append(f"  on {entry.load.filesystem or 'an unknown file system'}{speed}")
        for note in entry.load.notes:
            lines += terminal.wrapped(note, first="  ! ")
    if code:
        lines += _code(entry, terminal)
    return lines


def _code(entry: Entry, terminal: Terminal) -> list[str]:
    if not entry.code:
        return ["  no code"] if entry.complete else []
    imports = dict(entry.imports)
    lines = []
    for pin in entry.code:
        lines.append(f"  {tame(pin.path)}")
        lines.append(f"    sha256 {pin.sha256}")
        if imports.get(pin.path):
            lines += terminal.wrapped(f"imports {', '.join(imports[pin.path])}", first="    ")
    return lines
