"""The unit of a guard, next to the engine's."""

from __future__ import annotations

from collections.abc import Sequence

from kimideploy.errors import RequestError
from kimideploy.render.files import check_path, in_a_home, template
from kimideploy.render.quoting import systemd_words

#: under this name systemd hands the keys over
_CREDENTIAL = "guard.keys"


def guard_unit(
    *,
    program: str,
    upstream: str,
    words: Sequence[str],
    port: int,
    keys: str | None,
    loopback: bool,
) -> str:
    """Return the unit of a guard for *upstream*; raises RequestError for a path it can't see.

    `loopback`: it reaches nothing, and nothing reaches it, from another machine.
    """
    check_path("the program", program)
    if in_a_home(program):
        raise RequestError(
            f"kimideploy is installed at {program}, in a home that the unit can't see",
            hint="install it under /opt, e.g. with `uv tool install` as root and UV_TOOL_DIR set",
        )
    credential = None
    if keys is not None:
        check_path("--keys", keys)
        if any(sign in keys for sign in "%:\\\n"):
            raise RequestError(f"--keys {keys!r} holds a sign that a unit reads as its own")
        credential = f"{_CREDENTIAL}:{keys}"
        words = [*words, "--keys", f"%d/{_CREDENTIAL}"]
    command = systemd_words([program, "guard", "run", upstream, *words])
    return template(
        "guard.service.j2",
        {
            "upstream": upstream,
            # Why after quoting: %d is systemd's own word for the folder of credentials.
            "command": command.replace("%%d/", "%d/"),
            "keys": credential,
            "port": port,
            "loopback": loopback,
        },
    )
