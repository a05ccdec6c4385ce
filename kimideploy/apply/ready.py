"""Whether an engine is ready: healthy, and serving the model it was started for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kimideploy.conformance.client import Client, Reply, Unreachable

#: seconds; these routes answer at once or not at all
_PATIENCE = 5.0
_OK = 200


@dataclass(frozen=True, slots=True)
class Standing:
    """loading: not yet · ready · wrong: it answers and will never be what was asked for."""

    state: Literal["loading", "ready", "wrong"]
    said: str


def standing(client: Client, *, health: str, models: str, model: str) -> Standing:
    """Return how the endpoint stands right now; `health` and `models` are its paths."""
    try:
        healthy = client.get(health, timeout=_PATIENCE)
        if healthy.status != _OK:
            return Standing("loading", f"{health} answers {healthy.status}")
        return judge_models(client.get(models, timeout=_PATIENCE), model)
    except Unreachable as error:
        return Standing("loading", str(error))


def judge_models(reply: Reply, model: str) -> Standing:
    """Return how an endpoint that is healthy stands, by the models it names."""
    body = reply.json()
    listed = body.get("data") if isinstance(body, dict) else None
    if reply.status != _OK or not isinstance(listed, list):
        return Standing("loading", f"the list of models answers {reply.status}")
    names = [str(item.get("id")) for item in listed if isinstance(item, dict)]
    if model in names:
        return Standing("ready", model)
    if not names:
        return Standing("loading", "no model is listed yet")
    # Why final: an engine that is healthy names all it serves.
    return Standing("wrong", f"it serves {', '.join(names)} and not {model}")
