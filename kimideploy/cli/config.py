"""`kimideploy.yaml`: the options of `plan` and `serve`, written down."""

from __future__ import annotations

from pathlib import Path

from kimideploy.documents import read_document
from kimideploy.errors import RequestError
from kimideploy.planning.types import Request
from kimideploy.quantities import Bytes

#: read when it lies in the working directory and no --config names another
DEFAULT = Path("kimideploy.yaml")
#: the keys that name the machine: a machine said by flags leaves all of them out
MACHINE = ("hardware", "facts", "ram", "cores", "numa", "disk")


class Config(Request, frozen=True, forbid_unknown_fields=True):
    """A request, the machine it is for, and folders of profiles; paths are relative to the file."""

    hardware: str | None = None
    facts: tuple[str, ...] = ()
    ram: Bytes | None = None
    cores: int | None = None
    numa: int | None = None
    disk: Bytes | None = None
    profiles: tuple[str, ...] = ()
    #: where to deploy: USER@HOST, by SSH
    hosts: tuple[str, ...] = ()


def read_config(path: Path | None) -> tuple[Config, Path | None]:
    """Return the config at *path*, or of the working directory, and where it was read from.

    Raises RequestError with FILE:LINE:COLUMN for what can't be read.
    """
    found = path if path is not None else DEFAULT if DEFAULT.is_file() else None
    if found is None:
        return Config(), None
    try:
        text = found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--config {found} can't be read: {error}") from error
    return read_document(text, Config, name=str(found)), found
