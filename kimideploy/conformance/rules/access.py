"""Health, the model's name, and the key."""

from __future__ import annotations

import json

from kimideploy.conformance.answers import Answer, line, quote
from kimideploy.conformance.client import MARK
from kimideploy.conformance.promise import Promise
from kimideploy.conformance.rules.base import Finding, Heard, Rule, broken, kept, spared

_NONE_HERE = (401, 403, 404, 405)
#: signs of a model's name that are read
_LONG = 200


def _health(heard: Heard) -> Finding:
    answer = heard.answers["health"]
    if answer.ok:
        return kept("/health answers 200")
    if answer.error is None and answer.status in _NONE_HERE:
        return spared(f"/health answers {answer.status}: none here, as hosted APIs have none")
    return broken(f"/health: {answer.said}", cause="it does not run, still loads, or is stuck")


def _model(heard: Heard) -> Finding:
    answer, model = heard.answers["models"], heard.promise.model
    names = served(answer.json())
    if model in names:
        return kept(f"/v1/models names {quote(model)}")
    if answer.error is None and answer.status in (404, 405):
        return spared(f"/v1/models answers {answer.status}: it keeps no list")
    if answer.ok and names:
        return broken(
            f"{quote(model)} is not among {', '.join(quote(name) for name in names[:5])}",
            cause="it serves under another name, or another model",
            fix="--model with a name that is there, or --served-model-name at the engine",
        )
    return broken(f"/v1/models: {answer.said}", cause="it lists no models")


def served(models: object) -> list[str]:
    """Return the names in the answer to /v1/models."""
    data = models.get("data") if isinstance(models, dict) else None
    found = (
        [one.get("id") for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    )
    return [line(name, _LONG) for name in found if isinstance(name, str)]


def _locked(heard: Heard) -> Finding:
    seen = {name: heard.answers[name] for name in ("no key", "wrong key")}
    for name, answer in seen.items():
        if answer.ok and answer.message is not None:
            return broken(
                f"{name}: {answer.said}",
                cause="whoever reaches the port may use it",
                fix="put `kimideploy guard` before it, with a key",
            )
    unclear = next((name for name, answer in seen.items() if not _refuses(answer)), None)
    if unclear is not None:
        return spared(f"{unclear}: {seen[unclear].said}: that tells nothing of keys")
    statuses = " and ".join(str(answer.status) for answer in seen.values())
    return kept(f"without a key, and with a wrong one, it answers {statuses}")


def _refuses(answer: Answer) -> bool:
    """Whether it says no, to the key or to the request; a wait or a fault says neither."""
    return answer.refused or answer.status in (401, 403)


def _silent(heard: Heard) -> Finding:
    for name, answer in heard.answers.items():
        if MARK in json.dumps([answer.body, answer.headers, answer.events, answer.error]):
            return broken(
                f"the answer to {name!r} repeats the key",
                cause="errors or headers show what was sent; logs will, too",
                fix="change the key, and report it to whoever runs the endpoint",
            )
    return kept(f"the key is in none of {len(heard.answers)} answers")


def _keyless(promise: Promise) -> str | None:
    return None if promise.has_key else "no key was given"


RULES = (
    Rule("health", _health, ("health",), quick=True),
    Rule("model id", _model, ("models",), quick=True),
    Rule("key is asked for", _locked, ("no key", "wrong key"), quick=True, spare=_keyless),
    Rule("key is not told", _silent, ("no key", "wrong key"), quick=True, spare=_keyless),
)
