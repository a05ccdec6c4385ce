"""One token asked for: whether an engine that is up does its work."""

from __future__ import annotations

from kimideploy.conformance.client import Client, Unreachable

_OK = 200


def token(client: Client, model: str, *, timeout: float) -> None:
    """Return when *model* has made a token; raises Unreachable if none came."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "1"}],
        "max_tokens": 1,
        "temperature": 0,
    }
    reply = client.post("/v1/chat/completions", body, timeout=timeout)
    answer = reply.json()
    if reply.status != _OK or not isinstance(answer, dict) or not answer.get("choices"):
        raise Unreachable(f"a question is answered by {reply.status} without a choice")
