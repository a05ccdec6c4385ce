"""Which field an engine puts its reasoning in."""

from __future__ import annotations

from kimideploy.conformance.client import Client, Unreachable
from kimideploy.conformance.promise import Field

#: seconds one token may take
_PATIENCE = 60.0


def field_of(client: Client) -> Field:
    """Return the field of the engine at *client*; raises Unreachable.

    By who it says it is: vLLM's lists say `owned_by: vllm`, and it alone says `reasoning`
    (https://github.com/vllm-project/vllm/pull/33402).
    """
    reply = client.get("/v1/models", timeout=_PATIENCE)
    body = reply.json()
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        raise Unreachable(f"/v1/models answers {reply.status} without a list")
    owners = {one.get("owned_by") for one in data if isinstance(one, dict)}
    return "reasoning" if "vllm" in owners else "reasoning_content"
