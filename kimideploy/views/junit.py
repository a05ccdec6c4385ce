"""A verdict as JUnit's XML, which every CI shows."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from kimideploy.conformance.verdict import Check, Verdict
from kimideploy.views.terminal import tame


def junit(verdicts: tuple[Verdict, ...]) -> bytes:
    """Return the document: a suite for each endpoint, a case for each check."""
    root = Element("testsuites", name="kimideploy verify")
    for verdict in verdicts:
        suite = SubElement(
            root,
            "testsuite",
            name=f"{_plain(verdict.url)} {verdict.suite}",
            tests=str(len(verdict.checks)),
            failures=str(verdict.broken),
            errors="0",
            skipped=str(len(verdict.checks) - verdict.kept - verdict.broken),
        )
        for check in verdict.checks:
            _case(suite, verdict, check)
    body: bytes = tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + body + b"\n"


def _case(suite: Element, verdict: Verdict, check: Check) -> None:
    case = SubElement(suite, "testcase", classname=_plain(verdict.model), name=_plain(check.name))
    match check.outcome:
        case "fail":
            failure = SubElement(case, "failure", message=_plain(check.evidence))
            helps = {"cause": check.cause, "fix": check.fix, "see": check.link}
            lines = [f"{name}: {text}" for name, text in helps.items() if text is not None]
            for seen in check.seen:
                lines += [f"{seen.name}: {seen.request}", f"  {seen.answer}"]
            failure.text = _plain("\n".join(lines))
        case "not-applicable":
            SubElement(case, "skipped", message=_plain(check.evidence))
        case "pass":
            SubElement(case, "system-out").text = _plain(check.evidence)


def _plain(text: str) -> str:
    """Text without what XML can't hold."""
    return tame(text).encode("utf-8", "replace").decode()
