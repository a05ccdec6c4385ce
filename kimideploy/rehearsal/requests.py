"""Which requests an engine takes: paths, methods, keys, and bodies that are JSON at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kimideploy.rehearsal.refuse import invalid
from kimideploy.rehearsal.types import Mind, Problem

CHAT = ("/v1/chat/completions", "/chat/completions")
#: the kind of a problem that is answered by a bare `detail`
BARE = "bare"
_GET, _POST = ("GET",), ("POST",)
_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "vllm": {
        "/health": _GET,
        "/ping": ("GET", "POST"),
        "/version": _GET,
        "/metrics": _GET,
        "/v1/models": _GET,
        CHAT[0]: _POST,
    },
    "sglang": {
        "/health": _GET,
        "/health_generate": _GET,
        "/metrics": _GET,
        "/v1/models": _GET,
        CHAT[0]: _POST,
    },
    "llamacpp": {
        "/health": _GET,
        "/v1/health": _GET,
        "/metrics": _GET,
        "/models": _GET,
        "/v1/models": _GET,
        CHAT[0]: _POST,
        CHAT[1]: _POST,
    },
}
#: paths that need no key; vLLM asks for one below /v1 only
_OPEN = {
    "sglang": ("/health", "/health_generate", "/metrics"),
    "llamacpp": ("/health", "/v1/health", "/models", "/v1/models"),
}


def methods(path: str, mind: Mind) -> tuple[str, ...]:
    """Return the methods that *path* takes, none where there is nothing."""
    if path == "/metrics" and mind.family == "sglang" and not mind.metrics:
        return ()
    return _PATHS[mind.family].get(path, ())


def not_found(mind: Mind) -> dict[str, Any]:
    """Return the body of a 404."""
    if mind.family == "llamacpp":
        return {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}
    return {"detail": "Not Found"}


def admitted(path: str, headers: Mapping[str, str], key: str | None, mind: Mind) -> bool:
    """Whether a request with *headers* may ask for *path*."""
    if "open" in mind.mischief:
        return True
    guarded = path.startswith("/v1") if mind.family == "vllm" else path not in _OPEN[mind.family]
    if key is None or not guarded:
        return True
    given = {name.lower(): value for name, value in headers.items()}
    sent = [given.get("authorization", "")]
    if mind.family == "llamacpp":
        sent += [f"Bearer {given.get('x-api-key', '')}"]
    return f"Bearer {key}" in sent


def unauthorized(mind: Mind) -> dict[str, Any]:
    """Return the body of a 401."""
    if mind.family == "llamacpp":
        error = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
        return {"error": error}
    return {"error": "Unauthorized"}


def read(raw: bytes, kind: str, mind: Mind) -> Any:
    """Return the JSON in *raw*, or the Problem with it."""
    media = kind.partition(";")[0].strip().lower()
    if mind.family != "llamacpp" and media != "application/json":
        words = "Unsupported Media Type: Only 'application/json' is allowed"
        return Problem(400, f"1 validation error:\n  {words}", "Bad Request")
    if not raw and mind.family != "llamacpp":
        return invalid("missing", "body", "Field required", None)
    try:
        return json.loads(raw.decode("utf-8"))
    except json.JSONDecodeError as error:
        text = (
            f"'type': 'json_invalid', 'loc': 'body.{error.pos}', 'msg': 'JSON decode error',"
            f" 'input': '<dict of 0 items>', 'ctx': {{'error': {error.msg!r}}}"
        )
        message = f"1 validation error:\n  {{{text}}}"
        return Problem(400, message, "Bad Request", f"body.{error.pos}")
    except (ValueError, RecursionError):
        words = "There was an error parsing the body"
        return Problem(400, words, BARE if mind.family == "vllm" else "Bad Request")
