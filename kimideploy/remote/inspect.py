"""The facts of a host: the probe is piped to its Python; nothing is installed or left behind."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from kimideploy.errors import MachineError
from kimideploy.facts.probe import script
from kimideploy.facts.types import Aims, HostFacts
from kimideploy.remote.shell import Shell

#: the probe runs on Python 3.8 and later
_OLDEST = "import sys; sys.exit(sys.version_info < (3, 8))"


def inspect(
    shell: Shell, venvs: Sequence[str] = (), *, python: str = "python3", aims: Aims | None = None
) -> HostFacts:
    """Return what the host is; MachineError if it has no Python that can run the probe.

    Any *python* will do; one that has NVIDIA's bindings asks the driver itself, another nvidia-smi.
    """
    words = [word for venv in venvs for word in ("--venv", venv)]
    if aims is not None:
        words += ["--aims", msgspec.json.encode(aims).decode()]
    ended = shell.run([python, "-", *words], [script().encode()], plain=True)
    if ended.status != 0:
        if shell.run(["python3", "-c", _OLDEST], plain=True).status != 0:
            raise MachineError(
                f"{shell.address} has no Python 3.8 or later called python3",
                hint="apt install python3, or dnf install python3",
            )
        raise MachineError(f"{shell.address}: the probe failed: {ended.said}")
    try:
        return msgspec.convert(json.loads(ended.out), HostFacts)
    except (ValueError, msgspec.ValidationError) as error:
        raise MachineError(
            f"{shell.address}: the probe's answer can't be read: {error}",
            hint="something on the host prints when a shell starts; it must be silent over SSH",
        ) from error
