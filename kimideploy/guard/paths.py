"""The only paths there are. Everything else is 404, however it is spelt.

Engines have routes that need no key and stop, change or read them out (/invocations, /pause,
/update_weights, /server_info: https://docs.vllm.ai/en/stable/usage/security/). What is not listed
here can't be reached through the guard.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["chat", "relay", "models", "health", "metrics"]

#: method and path, byte for byte as they stand in the request line
_PATHS: dict[tuple[str, bytes], Kind] = {
    ("POST", b"/v1/chat/completions"): "chat",
    ("POST", b"/v1/completions"): "relay",
    ("POST", b"/v1/responses"): "relay",
    ("POST", b"/v1/messages"): "relay",
    ("POST", b"/v1/messages/count_tokens"): "relay",
    ("GET", b"/v1/models"): "models",
    ("GET", b"/health"): "health",
    ("HEAD", b"/health"): "health",
    ("GET", b"/metrics"): "metrics",
}


def paths() -> tuple[bytes, ...]:
    """Return all of them."""
    return tuple(dict.fromkeys(path for _, path in _PATHS))


def kind_of(method: str, raw_path: bytes) -> Kind | None:
    """Return what a request is for, None for what there is not.

    `raw_path` is what was sent, nothing decoded: `//`, `..`, `%2f` and letters of another case name
    other paths, and those do not exist.
    """
    return _PATHS.get((method, raw_path))
