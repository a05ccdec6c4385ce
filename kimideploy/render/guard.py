"""The unit of a guard, next to the engine's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kimideploy.errors import RequestError
from kimideploy.render.files import check_path, in_a_home, template
from kimideploy.render.quoting import systemd_words


def guard_unit(
    *,
    program: str,
    python: Sequence[str],
    upstream: str,
    words: Sequence[str],
    files: Mapping[str, str],
    port: int,
    loopback: bool,
) -> str:
    """Return the unit of a guard for *upstream*; raises RequestError for a path it can't see.

    `python` are the places of the interpreter behind the program. `files` are flags with the files
    that systemd hands over as credentials. `loopback`: it reaches nothing, and nothing reaches it,
    from another machine.
    """
    check_path("the program", program)
    for path in (program, *python):
        if in_a_home(f"{path}/"):
            raise RequestError(
                f"kimideploy runs from {path}, in a home that the unit can't see",
                hint="install it under /opt with a Python that is there, too, e.g. by uv with"
                " UV_TOOL_DIR and UV_PYTHON_INSTALL_DIR set",
            )
    command = systemd_words([program, "guard", "run", upstream, *words])
    credentials = []
    for flag, path in files.items():
        check_path(flag, path)
        if any(sign in path for sign in "%:\\\n"):
            raise RequestError(f"{flag} {path!r} holds a sign that a unit reads as its own")
        name = flag.removeprefix("--")
        credentials.append(f"{name}:{path}")
        # Why beside the quoted words: %d is systemd's own, the folder of credentials.
        command += f' {flag} "%d/{name}"'
    return template(
        "guard.service.j2",
        {
            "upstream": upstream.replace("%", "%%"),
            "command": command,
            "credentials": credentials,
            "port": port,
            "loopback": loopback,
        },
    )
