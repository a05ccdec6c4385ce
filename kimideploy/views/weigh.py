"""How a weighed checkpoint is shown: each stage's fullest rank by cause, counted and calculated."""

from __future__ import annotations

from collections.abc import Sequence

from kimideploy.planning.types import Share
from kimideploy.planning.weighing import StageBytes, Weighing
from kimideploy.quantities import GIB
from kimideploy.views.terminal import Terminal

_NAME, _NUMBER = 24, 14
#: sentences of one kind before "and so many more"
_MOST = 8


def shown(found: Weighing, terminal: Terminal) -> str:
    """Return what `kimideploy weigh` prints."""
    exact = found.exact
    at = f" at {found.revision[:12]}" if found.revision else ""
    files = f"{found.files:,} file" + ("s" if found.files != 1 else "")
    lines = terminal.wrapped(
        f"{found.place}{at}: {exact.bytes / 1e9:,.3f} GB in {exact.tensors:,} tensors, {files}",
        first="",
        rest="  ",
    )
    lines[0] = terminal.paint(lines[0], "bold")
    for index, stage in enumerate(exact.stages):
        calculated = found.calculated.stages[index] if found.calculated is not None else ()
        lines += ["", *_stage(stage, calculated, found, terminal)]
    notes = [*found.notes, *_few(exact.lacks)]
    notes += _few(
        [f"{one.name} says nothing to us: {one.bytes:,} bytes, whole" for one in exact.unknown]
    )
    for note in notes:
        lines += terminal.wrapped(note, first="- ")
    return terminal.shown(lines)


def _stage(
    stage: StageBytes, calculated: Sequence[Share], found: Weighing, terminal: Terminal
) -> list[str]:
    least, most = min(stage.ranks), max(stage.ranks)
    last = stage.first_layer + stage.layers - 1
    title = f"{found.layout}, layers {stage.first_layer} to {last}: {_gib(most)} on the fullest GPU"
    lines = [terminal.paint(title, "bold")]
    if least < most:
        lines.append(f"  {_gib(least)} on the least full one: experts do not divide evenly")
    head = f"  {'':<{_NAME}}{'summed':>{_NUMBER}}"
    by_cause = {share.cause: share.bytes for share in calculated}
    lines.append(head + (f"{'counted':>{_NUMBER}}{'off by':>10}" if calculated else ""))
    rows = [(share.cause, share.bytes) for share in stage.shares]
    rows.append(("together", sum(share.bytes for share in stage.shares)))
    by_cause["together"] = sum(by_cause.values())
    for cause, size in rows:
        text = f"  {cause:<{_NAME}}{_gib(size):>{_NUMBER}}"
        if calculated:
            counted = by_cause.get(cause, 0)
            text += f"{_gib(counted):>{_NUMBER}}{_off(counted, size):>10}"
        lines.append(text)
    return lines


def _off(counted: int, size: int) -> str:
    return f"{counted / size - 1:+.2%}" if size else ("0%" if not counted else "")


def _few(texts: Sequence[str]) -> list[str]:
    more = len(texts) - _MOST
    return [*texts[:_MOST], *([f"and {more:,} more of this kind"] if more > 0 else [])]


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
