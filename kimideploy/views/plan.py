"""How a decision is shown: the choice, the memory stack, the command, why, and every no."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kimideploy.catalog.types import Catalog
from kimideploy.planning.types import Decision, Fit, Launch, NoFit, Plan, Rejection, Share

GIB = 1 << 30
_BAR, _WIDTH = 30, 78
_COLOURS = ("blue", "cyan", "magenta", "green", "yellow", "red", "white")


def shown(decision: Decision, catalog: Catalog, *, every: bool = False) -> RenderableType:
    """Return what `kimideploy plan` prints; *every* lists each rejected candidate."""
    match decision:
        case Plan() as plan:
            return _plan(plan, catalog, every=every)
        case NoFit() as no:
            return _no_fit(no, every=every)


def _plan(plan: Plan, catalog: Catalog, *, every: bool) -> RenderableType:
    fit, candidate = plan.fit, plan.candidate
    model = catalog.models[plan.request.model] if plan.request.model in catalog.models else None
    name = model.name if model is not None else plan.request.model
    parts: list[RenderableType] = [
        Text.assemble((f"{name} fits", "bold green"), f": {candidate.label}"),
        *_lines(plan.inventory.notes, style="yellow"),
        Text(),
        _stack(fit),
        Text(),
        Text(
            f"KV cache: {fit.kv_tokens:,} tokens = {fit.max_concurrency:g} requests of"
            f" {fit.context:,} tokens"
        ),
    ]
    if plan.copies > 1:
        parts.append(Text(f"This machine park holds {plan.copies:,} copies of the plan."))
    for launch in plan.launches:
        where = f" on node {launch.node}" if len(plan.launches) > 1 else ""
        parts += [Text(), Text(f"Command{where}:", style="bold"), _command(launch)]
    parts += [Text(), Text("Why:", style="bold"), *_lines(plan.why)]
    pins = plan.pins
    parts += _lines(
        [
            f"{catalog.engines[candidate.engine].name} {pins.engine_version},"
            f" {pins.repo or 'no repository'} at {pins.revision or 'the current revision'}"
        ]
    )
    if plan.warnings:
        parts += [Text(), Text("Read before you pay:", style="bold yellow")]
        for notice in plan.warnings:
            parts += _lines([notice.text], mark="!", style="yellow")
            parts += _link(notice.link)
    return Group(*parts, *_rejected(plan.rejected, every=every))


def _no_fit(no: NoFit, *, every: bool) -> RenderableType:
    parts: list[RenderableType] = [
        Text.assemble(("Nothing fits", "bold red"), f": {no.reason}"),
        *_lines(no.inventory.notes, style="yellow"),
    ]
    if no.nearest is not None:
        parts += [
            Text(),
            Text(f"Nearest: {no.nearest.candidate.label}"),
            *_lines([_why(no.nearest)]),
        ]
        parts += _link(no.nearest.link)
    if no.fit is not None and (no.fit.shares or no.fit.ram):
        parts += [Text(), _stack(no.fit)]
        if no.fit.short > 0:
            parts.append(Text(f"{_gib(no.fit.short)} short on the fullest GPU", style="red"))
    if no.ways_out:
        parts += [Text(), Text("Ways out:", style="bold")]
        for way in no.ways_out:
            parts += _lines([way.change], mark="✓" if way.proved else "·")
        parts.append(Text("✓ was planned and fits", style="dim"))
    return Group(*parts, *_rejected(no.rejected, every=every))


def _stack(fit: Fit) -> RenderableType:
    """The memory of the fullest GPU, and of the host where experts live there."""
    parts: list[RenderableType] = []
    if fit.shares:
        title = f"Memory of the fullest GPU: {_gib(fit.capacity)}"
        parts.append(Text(f"{title}, {fit.memory_fraction:.0%} for the engine", style="bold"))
        parts.append(_bars(fit.shares, fit.capacity))
    if fit.ram:
        have = _gib(fit.ram_capacity) if fit.ram_capacity is not None else "unknown"
        total = sum(share.bytes for share in fit.ram)
        parts.append(Text(f"Host memory: {have}", style="bold"))
        parts.append(_bars(fit.ram, fit.ram_capacity or total))
    return Group(*parts)


def _bars(shares: Iterable[Share], whole: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=24)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for index, share in enumerate(shares):
        part = share.bytes / whole if whole else 0.0
        colour = "dim" if share.cause == "headroom" else _COLOURS[index % len(_COLOURS)]
        mark = " (guess)" if share.guess else ""
        bar = Text("█" * min(_BAR, round(part * _BAR)) or "▏", style=colour)
        table.add_row(f"  {share.cause}{mark}", _gib(share.bytes), f"{part:4.0%}", bar)
    return table


def _command(launch: Launch) -> RenderableType:
    """A command one can copy: shell words, one flag a line."""
    lines: list[str] = [f"{name}={shlex.quote(value)}" for name, value in launch.env]
    line = ""
    for word in launch.argv:
        quoted = shlex.quote(word)
        if line and (quoted.startswith("--") or len(line) + len(quoted) > _WIDTH - 4):
            lines.append(line)
            line = quoted
        else:
            line = f"{line} {quoted}" if line else quoted
    lines.append(line)
    packed: list[str] = []
    for piece in lines:
        if packed and len(packed[-1]) + len(piece) < _WIDTH - 4:
            packed[-1] += f" {piece}"
        else:
            packed.append(piece)
    # Why no padding: a space after a backslash would end the command there.
    return Text("  " + " \\\n    ".join(packed), no_wrap=True, overflow="ignore")


def _rejected(rejected: tuple[Rejection, ...], *, every: bool) -> list[RenderableType]:
    if not rejected:
        return []
    parts: list[RenderableType] = [Text(), Text(f"Rejected ({len(rejected)}):", style="bold")]
    if every:
        for rejection in rejected:
            parts.append(Text(f"  ✗ {rejection.candidate.label}"))
            parts += _lines([_why(rejection)], indent=4)
            parts += _link(rejection.link)
        return parts
    seen = Counter((r.candidate.checkpoint, r.candidate.engine, r.rule) for r in rejected)
    for rejection in rejected:
        candidate = rejection.candidate
        key = (candidate.checkpoint, candidate.engine, rejection.rule)
        count = seen.pop(key, 0)
        if count:
            times = f" ({count}×)" if count > 1 else ""
            head = f"{candidate.checkpoint} · {candidate.engine} [{rejection.rule}]{times}"
            parts += _lines([f"{head}: {_why(rejection)}"], mark="✗")
    parts.append(Text("--all shows each one", style="dim"))
    return parts


def _why(rejection: Rejection) -> str:
    numbers = ""
    if rejection.need is not None and rejection.have is not None:
        if rejection.rule in ("weights", "ram"):
            numbers = f" ({_gib(rejection.need)} needed, {_gib(rejection.have)} there)"
    elif rejection.need is not None and rejection.rule == "ram-unknown":
        numbers = f" ({_gib(rejection.need)} needed)"
    way = f" → {rejection.way_out}" if rejection.way_out is not None else ""
    return f"{rejection.reason}{numbers}{way}"


def _lines(
    texts: Iterable[str], *, mark: str = "·", style: str = "", indent: int = 2
) -> list[RenderableType]:
    """Texts with a mark, wrapped below themselves."""
    rows: list[RenderableType] = []
    for text in texts:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(ratio=1)
        table.add_row(Text(mark, style=style), Text(text))
        rows.append(Padding(table, (0, 0, 0, indent)))
    return rows


def _link(link: str | None) -> list[RenderableType]:
    return [Text(f"    {link}", style="dim", no_wrap=True, overflow="ignore")] if link else []


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
