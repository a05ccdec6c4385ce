"""From answers to a verdict. Pure: the same answers make the same verdict, from a record, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kimideploy.conformance.answers import Answer, line
from kimideploy.conformance.asks import Ask
from kimideploy.conformance.promise import Promise
from kimideploy.conformance.rules.base import Heard, Rule
from kimideploy.conformance.verdict import Check, Seen, Speed

#: how much of a request and of an answer a verdict shows
_SHOWN = 400


def needed(rules: Sequence[Rule], promise: Promise) -> tuple[str, ...]:
    """Return the names of the requests that *rules* look at, each once."""
    wanted = [name for rule in rules if rule.spare(promise) is None for name in rule.asks]
    return tuple(dict.fromkeys(wanted))


def checks(rules: Sequence[Rule], heard: Heard, asked: Mapping[str, Ask]) -> tuple[Check, ...]:
    """Return what each rule finds, with the requests behind what failed."""
    found = []
    for rule in rules:
        finding = rule.find(heard)
        behind = rule.asks if finding.outcome == "fail" else ()
        found.append(
            Check(
                name=rule.name,
                outcome=finding.outcome,
                evidence=finding.evidence,
                cause=finding.cause,
                fix=finding.fix,
                link=finding.link,
                seen=tuple(seen(asked[name], heard.answers[name]) for name in behind),
            )
        )
    return tuple(found)


def seen(ask: Ask, answer: Answer) -> Seen:
    """Return a request and its answer, shortened."""
    body = json.dumps(ask.body, ensure_ascii=False) if ask.body is not None else ""
    sent = f"{'GET' if ask.body is None else 'POST'} {ask.path} {body}".strip()
    return Seen(name=ask.name, request=line(sent, _SHOWN), answer=line(answer.said, _SHOWN))


def speed(answers: Mapping[str, Answer]) -> Speed | None:
    """Return how fast the streamed answers came, None if none did."""
    firsts: list[float] = []
    rates: list[float] = []
    for answer in answers.values():
        if not answer.ok or answer.events is None or answer.first is None:
            continue
        message = answer.message
        if message is None:
            continue
        firsts.append(answer.first)
        took, tokens = answer.seconds - answer.first, message.completion_tokens
        if tokens is not None and tokens > 1 and took > 0:
            rates.append((tokens - 1) / took)
    if not firsts:
        return None
    return Speed(
        answers=len(firsts),
        first_p50=share(firsts, 0.50),
        first_p95=share(firsts, 0.95),
        rate_p50=share(rates, 0.50) if rates else None,
        # Why 0.05: of rates the slow ones are the bad ones.
        rate_p95=share(rates, 0.05) if rates else None,
    )


def share(values: Sequence[float], part: float) -> float:
    """Return the value that *part* of *values* do not exceed, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(part * 1000) * len(ordered) // 1000) - 1))]
