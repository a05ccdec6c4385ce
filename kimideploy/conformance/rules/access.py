"""Health, the model's name, and the key."""

from __future__ import annotations

from kimideploy.conformance.answers import quote
from kimideploy.conformance.promise import Promise
from kimideploy.conformance.rules.base import Finding, Heard, Rule, broken, kept, spared

#: stands where a key was in an answer; the key itself is never kept
MARK = "[the key]"
_NONE_HERE = (401, 403, 404, 405)
_REFUSED = (401, 403)


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
    return [name for name in found if isinstance(name, str)]


def _locked(heard: Heard) -> Finding:
    seen = {name: heard.answers[name] for name in ("no key", "wrong key")}
    open_to = [name for name, answer in seen.items() if answer.status not in _REFUSED]
    if not open_to:
        return kept("without a key, and with a wrong one, it answers 401 or 403")
    told = "; ".join(f"{name}: {seen[name].said}" for name in open_to)
    return broken(
        told,
        cause="whoever reaches the port may use it",
        fix="put `kimideploy guard` before it, with a key",
    )


def _silent(heard: Heard) -> Finding:
    for name, answer in heard.answers.items():
        if MARK in answer.body or any(MARK in value for value in answer.headers.values()):
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
