"""Code that comes with weights: an engine runs it, so its hashes are pinned.

That is Python, which it runs when it is told to trust the checkpoint, and the chat template, which
is a program too: another one has the model see something else.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from pathlib import Path

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.files import write_whole
from kimideploy.planning.types import CodePin
from kimideploy.weights.hashing import sha256_of
from kimideploy.weights.manifest import Manifest

#: beside the commits of a repository: the code that was accepted last
FILE = ".code.json"
_MOST = 16 << 20
#: leads from the name of a file to where it lies now
Where = Callable[[str], Path]


def pins_of(where: Where, manifest: Manifest) -> tuple[CodePin, ...]:
    """Return the sha256 of each file of code, which lies proved *where* its name leads to."""
    return tuple(
        CodePin(item.path, sha256_of(where(item.path)))
        for item in sorted(manifest.code, key=lambda item: item.path)
    )


def accepted(home: Path, *, lenient: bool = False) -> tuple[CodePin, ...] | None:
    """Return what was accepted for the repository in *home*, None if nothing ever was.

    A record that can't be read is a WeightsError, or nothing where that is *lenient*.
    """
    try:
        with (home / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST), type=tuple[CodePin, ...])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if lenient:
            return None
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
    where: Where,
    manifest: Manifest,
    home: Path,
    *,
    pinned: tuple[CodePin, ...] | None,
    accept: bool,
) -> str | None:
    """Remember the code of *manifest* as accepted; returns what the operator should know of it.

    Nothing is said while a file of it is still to come. Raises WeightsError for code that differs
    from what a plan pinned, or else from what was accepted for the repository in *home* before, and
    for code that another repository would bring, unless *accept*.
    """
    if not all(where(item.path).exists() for item in manifest.code):
        return None
    known = accepted(home, lenient=accept)
    before = pinned if pinned is not None else known
    if not accept:
        elsewhere = foreign(where, manifest)
        if elsewhere:
            raise WeightsError(
                f"{elsewhere[0]}, which nobody has pinned",
                hint="--accept-code goes on; the engine then has to find that code by itself",
            )
        same(where, manifest, home, before)
    pins = pins_of(where, manifest)
    if known != pins:
        remember(home, pins)
    if before is None and pins:
        names = ", ".join(pin.path for pin in pins)
        return f"code an engine will run, accepted at first sight: {names}"
    changed = changes(before or (), pins)
    return f"other code is accepted from now on: {', '.join(changed)}" if changed else None


def same(where: Where, manifest: Manifest, home: Path, before: tuple[CodePin, ...] | None) -> None:
    """Raise WeightsError where the code of *manifest* is not *before*; None is no word on it."""
    changed = changes(before, pins_of(where, manifest)) if before is not None else []
    if before is not None and changed:
        raise WeightsError(
            f"{manifest.repo} brings other code than was accepted: {', '.join(changed)}",
            hint=f"{_how_to_read(where, manifest, home, before)}; --accept-code then takes it",
        )


def _how_to_read(where: Where, manifest: Manifest, home: Path, before: Iterable[CodePin]) -> str:
    """Return the command that shows the first change, where the old file is still in *home*."""
    for pin in before:
        now = where(pin.path)
        if not now.is_file() or sha256_of(now) == pin.sha256:
            continue
        for depth in ("*", "*/*"):
            for old in sorted(home.glob(f"{depth}/{escape(pin.path)}")):
                if old.is_file() and sha256_of(old) == pin.sha256:
                    return shlex.join(["diff", "-u", str(old), str(now)])
    some = where(manifest.code[0].path).parent if manifest.code else home
    return f"read it below {some}"


def foreign(where: Where, manifest: Manifest) -> list[str]:
    """Return which configurations have an engine take code out of another repository, in words.

    transformers writes that as `auto_map: {AutoConfig: ORG/NAME--module.Class}`.
    """
    found = []
    for item in manifest.items:
        if not item.path.endswith("config.json") or "/" in item.path or item.size > _MOST:
            continue
        try:
            config = msgspec.json.decode(where(item.path).read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        found += [
            f"{item.path} has an engine take code from {word.partition('--')[0]!r:.100}"
            for word in _mapped(config)
            if "--" in word
        ]
    return found


def _mapped(config: object) -> Iterator[str]:
    """Yield the words of every `auto_map` in *config*, however deep."""
    if isinstance(config, list):
        for one in config:
            yield from _mapped(one)
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key == "auto_map" and isinstance(value, dict):
            words = [w for v in value.values() for w in (v if isinstance(v, list) else [v])]
            yield from (word for word in words if isinstance(word, str))
        else:
            yield from _mapped(value)


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
