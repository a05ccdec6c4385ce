"""One run: learn what the endpoint is, ask everything the suite needs, judge."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kimideploy.conformance.answers import Answer
from kimideploy.conformance.asks import Ask, asks
from kimideploy.conformance.client import Client
from kimideploy.conformance.judge import checks, needed, speed
from kimideploy.conformance.promise import Promise, draw
from kimideploy.conformance.rules import rules
from kimideploy.conformance.rules.access import served
from kimideploy.conformance.rules.base import Heard
from kimideploy.conformance.send import Endpoint, Sender, Watch, collect
from kimideploy.conformance.verdict import Verdict

#: connections that fail one after the other before nothing more is asked
_GIVEN_UP = 3
#: tokens of the longest context that is believed
_LONGEST = 1 << 21

#: told the requests that are answered, all of them, and the name of the last
Tell = Callable[[int, int, str], None]


def prove(client: Client, promise: Promise, watch: Watch) -> Verdict:
    """Return what the endpoint proves by the quick suite, with code words drawn anew."""
    sender = Endpoint(client, watch=watch)
    promise = replace(promise, has_key=client.key is not None)
    return run(sender, promise, url=client.url, suite="quick", seed=secrets.randbelow(1 << 31))


def discover(sender: Sender, model: str | None) -> tuple[Answer, list[str], int | None]:
    """Return the answer to /v1/models, the names in it, and the context of *model* in tokens.

    Without a *model* it is the first one's.
    """
    answer = sender.send(Ask("models", path="/v1/models"))
    body = answer.json()
    return answer, served(body), _context(body, model)


def run(
    sender: Sender,
    promise: Promise,
    *,
    url: str,
    suite: str,
    seed: int,
    tell: Tell = lambda *_: None,
) -> Verdict:
    """Return the verdict of *suite* on the endpoint behind *sender*.

    After some connections in a row that failed nothing more is asked; what was not asked fails, and
    says so.
    """
    models, _, context = discover(sender, promise.model)
    if promise.context is None or (context is not None and context < promise.context):
        promise = replace(promise, context=context)
    words, chosen = draw(seed), rules(suite)
    every = asks(promise, words)
    names = [name for name in needed(chosen, promise) if name in every]
    patient = Patient(sender, failures=int(models.error is not None))
    answers = {"models": models}
    rest = [every[name] for name in names if name not in answers]
    total = len(rest) + 1
    tell(1, total, "models")
    for done, (ask, answer) in enumerate(collect(patient, rest), 2):
        answers[ask.name] = answer
        tell(done, total, ask.name)
    found = checks(chosen, Heard(promise, words, answers), every)
    return Verdict(
        url=url, model=promise.model, checks=found, suite=suite, seed=seed, speed=speed(answers)
    )


class Patient:
    """Passes requests on until too many in a row had no answer."""

    def __init__(self, sender: Sender, *, failures: int = 0) -> None:
        self._sender, self._failures = sender, failures

    def send(self, ask: Ask) -> Answer:
        """Return the answer to *ask*, or that it was not asked."""
        if self._failures >= _GIVEN_UP:
            return Answer(error=f"not asked: {_GIVEN_UP} requests in a row had no answer")
        answer = self._sender.send(ask)
        self._failures = self._failures + 1 if answer.error is not None else 0
        return answer


def _context(models: Any, model: str | None) -> int | None:
    """The longest request, as vLLM and SGLang tell it, gateways, or llama-server."""
    data = models.get("data") if isinstance(models, dict) else None
    listed = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    about = next((one for one in listed if model in (None, one.get("id"))), {})
    meta = about.get("meta")
    told = about.get("max_model_len") or about.get("context_length")
    told = told or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    # Why a bound: a prompt over the limit is made, and whoever tells the limit may lie.
    return told if type(told) is int and 0 < told <= _LONGEST else None
