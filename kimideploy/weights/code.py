"""Code that comes with weights: an engine told to trust it runs it, so its hashes are pinned."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights.manifest import Manifest
from kimideploy.weights.store import write_whole

#: beside the commits of a checkpoint: the code that was accepted last
FILE = ".code.json"
_MOST = 16 << 20


def pins_of(folder: Path, manifest: Manifest) -> tuple[CodePin, ...]:
    """Return the sha256 of each file of code in *folder*; the files are there and proved."""
    return tuple(
        CodePin(item.path, sha256((folder / item.path).read_bytes()).hexdigest())
        for item in sorted(manifest.code, key=lambda item: item.path)
    )


def accepted(home: Path) -> tuple[CodePin, ...] | None:
    """Return what was accepted for the checkpoint in *home*, None if nothing ever was."""
    try:
        with (home / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST), type=tuple[CodePin, ...])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(
            f"{home / FILE} can't be read, so it can't be told whether the code has changed",
            hint="look at it; --accept-code writes it anew",
        ) from error


def remember(home: Path, pins: tuple[CodePin, ...]) -> None:
    """Remember *pins* as what may run."""
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / FILE, msgspec.json.format(msgspec.json.encode(pins), indent=1) + b"\n")


def changes(before: Iterable[CodePin], now: Iterable[CodePin]) -> list[str]:
    """Return the files that differ, in words."""
    old = {pin.path: pin.sha256 for pin in before}
    new = {pin.path: pin.sha256 for pin in now}
    found = []
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            found.append(f"{path} is gone")
        elif path not in old:
            found.append(f"{path} is new")
        elif old[path] != new[path]:
            found.append(f"{path} has changed")
    return found


def gate(
    folder: Path,
    manifest: Manifest,
    home: Path,
    *,
    pinned: tuple[CodePin, ...] | None,
    accept: bool,
) -> str | None:
    """Remember the code in *folder* as accepted; returns what the operator should know of it.

    Raises WeightsError for code that differs from what a plan pinned, or else from what was
    accepted for the checkpoint in *home* before, unless *accept*.
    """
    pins = pins_of(folder, manifest)
    before = pinned or None
    if before is None and not accept:
        before = accepted(home)
    changed = changes(before, pins) if before is not None else []
    if changed and not accept:
        raise WeightsError(
            f"{manifest.repo} brings other code than was accepted: {', '.join(changed)}",
            hint=f"read it below {folder}; --accept-code then takes it",
        )
    remember(home, pins)
    if before is None and pins:
        names = ", ".join(pin.path for pin in pins)
        return f"code an engine will run, accepted at first sight: {names}"
    return None


def imports_of(source: bytes) -> tuple[str, ...]:
    """Return the top-level names a file of code imports, as far as it is Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return tuple(sorted(found))
