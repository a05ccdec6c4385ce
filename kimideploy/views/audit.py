"""How an audit is shown: on a terminal, and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kimideploy.conformance.audit.report import Fate, Report, Way
from kimideploy.views.terminal import Style, Terminal, tame

_WAYS: dict[Way, str] = {
    "history": "Earlier answers, as they come back to the model",
    "answer": "Answers, on their way to the client",
    "request": "Fields of requests",
}
_NAME, _WHAT = 20, 10


def shown(report: Report, terminal: Terminal) -> str:
    """Return what `kimideploy audit` prints."""
    head = f"{report.subject}: {report.requests} requests, {report.steps} steps of the loop"
    lines = [terminal.paint(tame(head), "bold")]
    for way, title in _WAYS.items():
        fates = [fate for fate in report.fates if fate.way == way]
        if fates:
            lines += ["", title]
            for fate in fates:
                lines += _fate(fate, terminal)
    lines.append("")
    if report.refusal is not None:
        lines += terminal.wrapped(f"refused: {report.refusal}", first="", rest="  ")
    if report.exit_code:
        lines.append(f"the command ended with {report.exit_code}")
    if report.steps < report.whole:
        said = f"the loop ended after {report.steps} of {report.whole} steps"
        lines += terminal.wrapped(said, first="", rest="  ")
    verdict = "the reasoning and the tool calls are kept" if report.ok else "this breaks Kimi"
    lines.append(terminal.paint(verdict, "bold", "green" if report.ok else "red"))
    return terminal.shown(lines)


def _fate(fate: Fate, terminal: Terminal) -> list[str]:
    mark = "✗" if fate.breaks else "✓" if fate.what == "kept" else "·"
    if not terminal.unicode:
        mark = {"✗": "x", "✓": "+"}.get(mark, "-")
    lead = f"  {mark} {fate.field:<{_NAME}} {fate.what:<{_WHAT}} "
    lines = terminal.wrapped(fate.said, first=lead, rest=" " * len(lead))
    style: Style = "red" if fate.breaks else "green" if fate.what == "kept" else "yellow"
    lines[0] = lines[0].replace(f"  {mark} ", f"  {terminal.paint(mark, style)} ", 1)
    return lines


def page(reports: Sequence[tuple[str, str, Report]]) -> str:
    """Return Markdown about *reports*, each with its name and a sentence about it."""
    lines = ["| What | Reasoning | Tool ids | System prompt | Loop |", "|---|---|---|---|---|"]
    lines += [_row(name, report) for name, _, report in reports]
    for name, about, report in reports:
        lines += ["", f"## {name}", "", about, ""]
        lines += list(_table(report))
        if report.refusal is not None:
            lines += ["", f"The upstream refused: `{report.refusal[:200]}`"]
    return "\n".join(lines) + "\n"


def _row(name: str, report: Report) -> str:
    def told(field: str) -> str:
        fate = next((f for f in report.fates if f.field == field and f.way == "history"), None)
        if fate is None:
            return ""
        return f"**{fate.what}**" if fate.breaks else fate.what

    whole = "goes on" if report.ok else "**breaks**"
    cells = [name, told("reasoning"), told("tool ids"), told("system prompt"), whole]
    return f"| {' | '.join(cells)} |"


def _table(report: Report) -> Iterator[str]:
    yield "| Where | Field | What became of it | |"
    yield "|---|---|---|---|"
    for fate in report.fates:
        what = f"**{fate.what}**" if fate.breaks else fate.what
        said = fate.said.replace("|", "\\|").replace("\n", " ")
        yield f"| {fate.way} | `{fate.field}` | {what} | {said} |"
