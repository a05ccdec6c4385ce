"""Rendered files on disk: whole or not at all, and never over someone's own without leave."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kimideploy.errors import MachineError, RequestError
from kimideploy.files import write_whole

_SCRIPT, _TEXT = 0o755, 0o644


def write_files(folder: Path, files: Mapping[str, str], *, force: bool = False) -> list[Path]:
    """Return the paths written; each holds its whole text, scripts can be run.

    Raises RequestError, before anything is written, if a file with another text is there and
    `force` is not given; MachineError if the folder can't be written.
    """
    targets = {folder / name: text for name, text in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [path for path, text in targets.items() if _differs(path, text)]
        if taken and not force:
            raise RequestError(
                f"{', '.join(map(str, taken))} is there already with another text",
                hint="--force replaces it",
            )
        for path, text in targets.items():
            mode = _SCRIPT if path.suffix == ".sh" else _TEXT
            write_whole(path, text.encode(), mode=mode)
    except OSError as error:
        raise MachineError(f"{folder} can't be written: {error.strerror}") from error
    return list(targets)


def _differs(path: Path, text: str) -> bool:
    if not os.path.lexists(path):
        return False
    return not path.is_file() or path.read_bytes() != text.encode()
