"""Which of the two connections is made: paramiko's, unless the configuration needs ssh itself."""

from __future__ import annotations

import atexit
import shutil

from kimideploy.errors import MachineError
from kimideploy.remote.access import Access
from kimideploy.remote.address import Address, parse
from kimideploy.remote.known_hosts import lines, needs_certificates
from kimideploy.remote.settings import settings
from kimideploy.remote.transport import Transport


def connect(address: Address, access: Access) -> Transport:
    """Return a connection to *address*; raises MachineError with the cause."""
    which = access.ssh
    if which == "auto":
        which = "openssh" if why_openssh(address, access) is not None else "paramiko"
    if which == "paramiko":
        from kimideploy.remote import paramiko_ssh  # noqa: PLC0415

        return _ended_at_exit(paramiko_ssh.connect(address, access))
    from kimideploy.remote import openssh  # noqa: PLC0415

    if shutil.which("ssh") is None:
        raise MachineError("there is no ssh on this machine", hint="--ssh paramiko")
    return _ended_at_exit(openssh.connect(address, access))


def _ended_at_exit(made: Transport) -> Transport:
    """Have the connection ended with this process, whoever forgets it."""
    atexit.register(made.close)
    return made


def why_openssh(address: Address, access: Access, *, depth: int = 8) -> str | None:
    """Return what the user's configuration has that paramiko can't do, None if nothing."""
    if shutil.which("ssh") is None:
        return None
    how = settings(address, access.config)
    if how.beyond_paramiko is not None:
        return how.beyond_paramiko
    for jump in how.jumps if depth else ():
        beyond = why_openssh(parse(jump), access, depth=depth - 1)
        if beyond is not None:
            return f"{beyond} of {jump}"
    if needs_certificates(list(lines(how.known_hosts)), how.name):
        return "a host that is known by its certificate"
    return None
