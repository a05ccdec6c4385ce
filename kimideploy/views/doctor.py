"""How the doctor's report is shown: what stands in the way first, and the rest counted."""

from __future__ import annotations

from collections.abc import Sequence

from kimideploy.doctor.check import Check
from kimideploy.doctor.types import Examined, Outcome, Report, Severity
from kimideploy.views.terminal import Style, Terminal, tame

_MARKS: dict[Outcome, tuple[str, str, Style]] = {
    "blocks": ("✗", "NO", "red"),
    "warns": ("!", "!", "yellow"),
    "notes": ("·", "-", "cyan"),
    "unknown": ("?", "?", "magenta"),
    "skipped": ("–", "--", "yellow"),
    "pass": ("✓", "ok", "green"),
    "other": ("–", "--", "dim"),
}
#: told one by one, in this order; the others are counted
_TOLD: tuple[Outcome, ...] = ("blocks", "warns", "notes", "skipped", "unknown")
_NAME = 18
_INDENT = " " * (_NAME + 5)


def shown(report: Report, terminal: Terminal, *, every: bool = False) -> str:
    """Return what `kimideploy doctor` prints about one machine; *every*: passed checks too."""
    who = report.host or "this machine"
    lines = [terminal.paint(tame(f"{who}  {report.plan or 'no plan'}"), "bold"), ""]
    for outcome in (*_TOLD, *(("pass", "other") if every else ())):
        for check in report.of(outcome):
            lines += told(check, terminal, brief=outcome in ("pass", "other", "unknown"))
    if lines[-1]:
        lines.append("")
    return terminal.shown([*lines, *_sum(report, terminal)])


def told(check: Examined, terminal: Terminal, *, brief: bool = False) -> list[str]:
    """Return the lines of one check."""
    fine, plain, style = _MARKS[check.outcome]
    mark = fine if terminal.unicode else plain
    lead = f"  {mark} {check.name:<{_NAME}} "
    seen = [finding.seen for finding in check.findings]
    if check.outcome == "skipped":
        seen = [f"skipped: {one}" for one in seen]
    lines: list[str] = []
    for at, text in enumerate(seen or [check.reason or check.holds]):
        first = lead if at == 0 else " " * len(lead)
        lines += terminal.wrapped(text, first=first, rest=" " * len(lead))
    lines[0] = lines[0].replace(f"  {mark} ", f"  {terminal.paint(mark, style)} ", 1)
    if brief or check.outcome == "skipped":
        return lines
    lines += terminal.wrapped(f"why: {check.why}", first=_INDENT, rest=f"{_INDENT}     ")
    for fix in dict.fromkeys(f.fix for f in check.findings if f.fix is not None):
        lines += terminal.wrapped(f"fix: {fix}", first=_INDENT, rest=f"{_INDENT}     ")
    if check.link is not None:
        # Why further left: an address can't be folded.
        lines.append(f"    see: {check.link}")
    return lines


def listed(checks: Sequence[Check], terminal: Terminal) -> str:
    """Return a line for each check: its name, how bad it is at most, what holds if it passes."""
    lines = []
    for check in checks:
        lead = f"{check.name:<{_NAME}} {check.severity:<7} "
        lines += terminal.wrapped(check.holds, first=lead, rest=" " * len(lead))
    return terminal.shown(lines)


def explained(check: Check, terminal: Terminal) -> str:
    """Return all that is to be said of one check."""
    words: dict[Severity, str] = {
        "blocks": "blocks: a launch is refused",
        "warns": "warns: a launch goes on",
        "notes": "notes: worth knowing",
        "fine": "says what it saw",
    }
    lines = [terminal.paint(check.name, "bold")]
    rows = [
        ("holds", check.holds),
        ("why", check.why),
        ("asked", f"for {check.scope.words}"),
        ("at worst", words[check.severity]),
        ("see", check.link),
        ("skip it", f"kimideploy serve --skip-check {check.name}"),
    ]
    for word, text in rows:
        if text is not None:
            lines += terminal.wrapped(text, first=f"  {word:<9} ", rest=" " * 12)
    return terminal.shown(lines)


def _sum(report: Report, terminal: Terminal) -> list[str]:
    counts = {outcome: len(report.of(outcome)) for outcome in _MARKS}
    parts = [
        f"{counts['pass']} pass",
        f"{counts['blocks']} block",
        f"{counts['warns']} warn",
        f"{counts['notes']} note",
        f"{counts['unknown']} unknown",
    ]
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped")
    parts.append(f"{counts['other']} for other plans")
    said = ", ".join(parts)
    style: Style = "red" if counts["blocks"] else "green"
    return [terminal.paint(line, "bold", style) for line in terminal.wrapped(said, first="")]
