"""How a verdict is shown: a line for each check, what is broken with its cause and cure."""

from __future__ import annotations

from typing import Literal

from kimideploy.conformance.verdict import Check, Outcome, Verdict
from kimideploy.views.terminal import Style, Terminal, tame

_MARKS: dict[Outcome, tuple[str, str, Style]] = {
    "pass": ("✓", "ok", "green"),
    "fail": ("✗", "NO", "red"),
    "not-applicable": ("–", "--", "dim"),
}
_NAME = 24
_INDENT = " " * 4
_HANGING = " " * 10
#: requests behind a broken promise that are shown, and signs of each; --json has more
_SEEN, _LONG = 1, 200


def shown(verdict: Verdict, terminal: Terminal) -> str:
    """Return what `kimideploy verify` prints about one endpoint."""
    head = f"{verdict.url}  {verdict.model}, suite {verdict.suite}"
    lines = [terminal.paint(tame(head), "bold"), ""]
    for check in verdict.checks:
        lines += _check(check, terminal)
    lines += ["", *_sums(verdict, terminal)]
    return terminal.shown(lines)


def _check(check: Check, terminal: Terminal) -> list[str]:
    mark, style = _mark(check.outcome, terminal)
    name = f"{check.name:<{_NAME}}"
    lead = f"  {mark} {name} "
    lines = terminal.wrapped(check.evidence, first=lead, rest=" " * len(lead))
    lines[0] = lines[0].replace(f"  {mark} ", f"  {terminal.paint(mark, style)} ", 1)
    helps = (("why", check.cause), ("fix", check.fix), ("see", check.link))
    for word, text in helps:
        if text is not None:
            lines += terminal.wrapped(f"{word}: {text}", first=_INDENT, rest=_HANGING)
    for seen in check.seen[:_SEEN]:
        lines += terminal.wrapped(f"sent: {seen.request[:_LONG]}", first=_INDENT, rest=_HANGING)
        lines += terminal.wrapped(f"came: {seen.answer[:_LONG]}", first=_INDENT, rest=_HANGING)
    return lines


def _sums(verdict: Verdict, terminal: Terminal) -> list[str]:
    spared = len(verdict.checks) - verdict.kept - verdict.broken
    score = f"score {verdict.score:.2f}" if verdict.score is not None else "nothing to score"
    said = f"{verdict.kept} kept, {verdict.broken} broken, {spared} do not apply: {score}"
    lines = [terminal.paint(said, "bold", "green" if verdict.ok else "red")]
    speed = verdict.speed
    if speed is not None:
        said = f"first text after {speed.first_p50:.2f} s (p95 {speed.first_p95:.2f} s)"
        if speed.rate_p50 is not None and speed.rate_p95 is not None:
            said += f", then {speed.rate_p50:,.0f} tokens/s (slowest {speed.rate_p95:,.0f})"
        of = f"{speed.answers} stream" + ("s" if speed.answers != 1 else "")
        lines += terminal.wrapped(f"{said}, of {of}", first="", rest="  ")
    return lines


def compared(one: Verdict, other: Verdict, terminal: Terminal) -> str:
    """Return two verdicts side by side, and then what the first one breaks."""
    lines = terminal.wrapped(f"A  {one.url}", first="", rest="   ")
    lines += terminal.wrapped(f"B  {other.url}", first="", rest="   ")
    lines.append("")
    lines.append(terminal.paint(f"{'':<{_NAME}}  A   B", "bold"))
    theirs = {check.name: check for check in other.checks}
    for check in one.checks:
        their = theirs.get(check.name)
        marks = _pair(check.outcome, their.outcome if their is not None else None, terminal)
        better = _better(check, their)
        lines.append(f"{check.name:<{_NAME}}  {marks}  {better or ''}".rstrip())
    for name, verdict in (("A", one), ("B", other)):
        lines += ["", *[f"{name}: {line}" for line in _sums(verdict, terminal)]]
    broken = [check for check in one.checks if check.outcome == "fail"]
    if broken:
        lines += ["", terminal.paint("broken by A", "bold")]
        for check in broken:
            lines += _check(check, terminal)
    return terminal.shown(lines)


def _pair(a: Outcome, b: Outcome | None, terminal: Terminal) -> str:
    left, left_style = _mark(a, terminal)
    right, right_style = _mark(b, terminal) if b is not None else (" ", "dim")
    return f"{terminal.paint(left, left_style)}   {terminal.paint(right, right_style)}"


def _better(a: Check, b: Check | None) -> Literal["A keeps it", "B keeps it"] | None:
    match (a.outcome, b.outcome if b is not None else None):
        case ("pass", "fail"):
            return "A keeps it"
        case ("fail", "pass"):
            return "B keeps it"
        case _:
            return None


def _mark(outcome: Outcome, terminal: Terminal) -> tuple[str, Style]:
    fine, plain, style = _MARKS[outcome]
    return (fine if terminal.unicode else plain), style
