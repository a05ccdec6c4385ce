"""How a decision is shown: the choice, the memory stack, the command, why, and every no.

It is text, not Rich: `kimideploy plan` must start fast, and what it prints is copied and piped.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from kimideploy.planning.types import (
    Candidate,
    Decision,
    Fit,
    Launch,
    NoFit,
    Plan,
    Rejection,
    Share,
    Summed,
    WayOut,
)
from kimideploy.quantities import GIB, MIB
from kimideploy.views import speed
from kimideploy.views.terminal import Style, Terminal

#: nodes whose command is shown: the head and the first that follows it; --all shows each
_NODES = 2
_CAUSE, _NUMBERS = 28, 20
_COLOURS: tuple[Style, ...] = ("blue", "cyan", "magenta", "green", "yellow", "red")
_NOT_ALL = "Rejected, one line for a checkpoint, engine and rule; --all lists each"


def shown(decision: Decision, terminal: Terminal, *, every: bool = False) -> str:
    """Return what `kimideploy plan` prints; *every* lists each rejection and each command."""
    rejected = _rejected(decision.rejected, terminal, every=every)
    match decision:
        case Plan() as plan:
            return terminal.shown([*_plan(plan, terminal, every=every), *rejected])
        case NoFit() as no:
            return terminal.shown([*_no_fit(no, terminal), *rejected])


def _plan(plan: Plan, terminal: Terminal, *, every: bool) -> list[str]:
    fit = plan.fit
    tight = fit.verdict == "tight"
    title = f"{plan.served_name} {'only just fits' if tight else 'fits'}: "
    lines = [
        terminal.paint(title, "bold", "yellow" if tight else "green")
        + terminal.paint(plan.candidate.label, "bold"),
        *_facts(plan, terminal),
        *_stacks(fit, terminal),
        *speed.lines(plan.speed, terminal),
        *_commands(plan, terminal, every=every),
        *_points("Why", (*plan.why, *fit.chosen), terminal),
    ]
    if plan.warnings:
        lines += ["", terminal.paint("Warnings", "bold", "yellow")]
        for notice in plan.warnings:
            lines += terminal.wrapped(notice.text, first="  ! ")
            lines += _link(notice.link, terminal)
    labels = [candidate.label for candidate in plan.alternatives]
    if not every:
        labels = labels[:3]
    return [*lines, *_points("Would fit too", labels, terminal)]


def _facts(plan: Plan, terminal: Terminal) -> list[str]:
    fit, pins = plan.fit, plan.pins
    weights = f"{pins.repo or 'unknown'} at {pins.revision or 'its newest revision'}"
    bar = ""
    if fit.kv_tokens_low is not None and fit.kv_tokens_high is not None:
        bar = f" ({fit.kv_tokens_low:,} … {fit.kv_tokens_high:,})"
    cache = f"{fit.kv_tokens:,}{bar} tokens, {fit.max_concurrency:g} requests of that length"
    rows = [
        ("Tier", plan.candidate.tier),
        ("Weights", plan.request.model_path or weights),
        ("Engine", f"{plan.candidate.engine} {pins.engine_version}"),
        ("Context", f"{fit.context:,} tokens a request"),
        ("KV cache", cache),
        ("A token", f"{fit.kv_bytes_per_token:,} bytes of that cache on each GPU"),
    ]
    if pins.code:
        files = f"{len(pins.code)} file" + ("s" if len(pins.code) > 1 else "")
        rows.append(("Code", f"{files} of the repository, pinned by sha256"))
    if plan.summed is not None:
        rows.append(("Exact", _summed(plan.summed)))
    if plan.copies > 1:
        rows.append(("Copies", f"{plan.copies:,} such plans fit on this hardware"))
    return [
        line
        for name, text in rows
        for line in terminal.wrapped(text, first=f"  {name:<9} ", rest=" " * 12)
    ]


def _summed(found: Summed) -> str:
    text = f"{_gib(found.fullest)} of weights on the fullest GPU by {found.tensors:,} headers"
    if found.counted is None:
        return text
    return f"{text}; counted {_gib(found.counted)}, {found.counted / found.fullest - 1:+.2%}"


def _no_fit(no: NoFit, terminal: Terminal) -> list[str]:
    lines = terminal.wrapped(f"Nothing fits: {no.reason}", first="", rest="  ")
    lines[0] = lines[0].replace("Nothing fits:", terminal.paint("Nothing fits:", "bold", "red"), 1)
    if no.nearest is not None:
        lines += ["", terminal.paint("Came nearest", "bold"), f"  {no.nearest.candidate.label}"]
        lines += terminal.wrapped(_why(no.nearest), first="  ")
        lines += _link(no.nearest.link, terminal)
    if no.fit is not None:
        lines += _stacks(no.fit, terminal)
    if no.ways_out:
        lines += ["", terminal.paint("Ways out", "bold") + ", those with + were planned and fit"]
        for way in no.ways_out:
            lines += _way_out(way, terminal)
    return lines


def _way_out(way: WayOut, terminal: Terminal) -> list[str]:
    mark = "+" if way.proved else "-"
    lines = terminal.wrapped(way.change, first=f"  {mark} ")
    if way.proved:
        lines[0] = lines[0].replace("+", terminal.paint("+", "green"), 1)
    flags = shlex.join(way.flags)
    if flags and flags not in way.change:
        lines.append(terminal.paint(f"    {flags}", "cyan"))
    return lines


def _stacks(fit: Fit, terminal: Terminal) -> list[str]:
    """The memory of the fullest GPU, and of the host where experts live there."""
    lines: list[str] = []
    if fit.shares:
        title = f"Memory of the fullest GPU, {_gib(fit.capacity)}"
        if fit.short:
            title += f": {_gib(fit.short)} short"
        lines += ["", terminal.paint(title, "bold")]
        lines += _stack(fit.shares, fit.capacity, terminal)
    if fit.ram:
        whole = fit.ram_capacity or sum(share.bytes for share in fit.ram)
        have = _gib(fit.ram_capacity) if fit.ram_capacity is not None else "size unknown"
        lines += ["", terminal.paint(f"Host memory of a node, {have}", "bold")]
        lines += _stack(fit.ram, whole, terminal)
    if any(share.guess for share in (*fit.shares, *fit.ram)):
        lines.append(terminal.paint("  ~ a guess: nobody measured or stated it", "dim"))
    return lines


def _stack(shares: Sequence[Share], whole: int, terminal: Terminal) -> list[str]:
    """A row for each cause; each bar begins where the one above it ends."""
    width = terminal.width - _CAUSE - _NUMBERS
    # Why the larger: what does not fit must not run out of its line.
    scale = max(whole, sum(share.bytes for share in shares))
    block = "█" if terminal.unicode else "#"
    lines, below = [], 0
    for index, share in enumerate(shares):
        start, end = below * width // scale, (below + share.bytes) * width // scale
        below += share.bytes
        bar = block * max(end - start, 1 if share.bytes else 0)
        style: Style = "dim" if share.cause == "headroom" else _COLOURS[index % len(_COLOURS)]
        name = f"{'~' if share.guess else ' '} {share.cause}"
        numbers = f"{_gib(share.bytes):>11} {share.bytes / whole:>6.1%}"
        line = f"{name:<{_CAUSE}} {numbers} {' ' * min(start, width - 1)}"
        lines.append((line + terminal.paint(bar, style)).rstrip())
    return lines


def _commands(plan: Plan, terminal: Terminal, *, every: bool) -> list[str]:
    lines: list[str] = []
    several = len(plan.launches) > 1
    for launch in plan.launches if every else plan.launches[:_NODES]:
        name = f"Command on node {launch.node}" if several else "Command"
        lines += ["", terminal.paint(name, "bold"), *command(launch, terminal.width)]
    hidden = len(plan.launches) - _NODES
    if hidden > 0 and not every:
        lines += ["", f"  … and {hidden} more nodes; --all shows their commands"]
    return lines


def command(launch: Launch, width: int) -> list[str]:
    """Return the launch as shell lines to copy, a flag with its value kept together."""
    groups = [[f"{name}={shlex.quote(value)}"] for name, value in launch.env]
    for index, word in enumerate(launch.argv):
        if index == 0 or word.startswith("-") or len(groups[-1]) > 1:
            groups.append([])
        groups[-1].append(shlex.quote(word))
    lines: list[str] = []
    line = ""
    for group in groups:
        text = " ".join(group)
        if line and len(line) + 1 + len(text) + 2 > width:
            lines.append(line + " \\")
            line = f"    {text}"
        else:
            line = f"{line} {text}" if line else f"  {text}"
    return [*lines, line]


def _points(title: str, texts: Iterable[str], terminal: Terminal) -> list[str]:
    lines = [line for text in texts for line in terminal.wrapped(text, first="  - ")]
    return ["", terminal.paint(title, "bold"), *lines] if lines else []


def _rejected(rejected: Sequence[Rejection], terminal: Terminal, *, every: bool) -> list[str]:
    if not rejected:
        return []
    if every:
        lines = ["", terminal.paint(f"Rejected, {len(rejected)}", "bold")]
        for rejection in rejected:
            lines.append(f"  - {rejection.candidate.label}")
            lines += terminal.wrapped(_why(rejection), first=f"    {rejection.rule}: ", rest="    ")
            lines += _link(rejection.link, terminal)
        return lines
    lines = ["", terminal.paint(_NOT_ALL, "bold")]
    alike: dict[tuple[str, str, str], list[Rejection]] = {}
    for rejection in rejected:
        alike.setdefault(_kind(rejection.candidate, rejection.rule), []).append(rejection)
    for (checkpoint, engine, rule), group in alike.items():
        times = f" ×{len(group)}" if len(group) > 1 else ""
        head = f"{checkpoint} · {engine} · {rule}{times}"
        lines += terminal.wrapped(f"{head}: {_why(min(group, key=_distance))}", first="  - ")
    return lines


def _kind(candidate: Candidate, rule: str) -> tuple[str, str, str]:
    return candidate.checkpoint, candidate.engine, rule


def _distance(rejection: Rejection) -> float:
    """How far it is from passing; the nearest one of a group speaks for it."""
    if rejection.need is None or not rejection.have:
        return float("inf") if rejection.need is None else float(rejection.need)
    return rejection.need / rejection.have


def _why(rejection: Rejection) -> str:
    """The reason with its numbers, and the nearest way out."""
    need, have = rejection.need, rejection.have
    numbers = ""
    # Why only large ones: small numbers are counts, and the reason names them.
    if need is not None and need >= MIB:
        numbers = f" ({_gib(need)} needed" + (f", {_gib(have)} there)" if have is not None else ")")
    way = f"; way out: {rejection.way_out}" if rejection.way_out is not None else ""
    return f"{rejection.reason}{numbers}{way}"


def _link(link: str | None, terminal: Terminal) -> list[str]:
    return [terminal.paint(f"    {link}", "dim")] if link is not None else []


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
