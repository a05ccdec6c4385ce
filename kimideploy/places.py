"""Where in a file an error is: msgspec's path, turned into the line and column of a node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec
import yaml

from kimideploy.errors import RequestError

Convert = Callable[[Any], object]
Trail = tuple[str | int, ...]

_DEEPEST = 64
_STEP = re.compile(r"\.\.\.|\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$([^`]*)`", re.DOTALL)
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def explained(
    error: msgspec.ValidationError,
    value: Any,
    root: yaml.Node,
    *,
    kind: type,
    name: str,
    convert: Convert,
) -> RequestError:
    """Turn msgspec's "… - at `$.a[0].b`" into the place in the file.

    What looks like a path may be a key that the user wrote, so nothing relies on it being one.
    """
    placed = _PLACE.fullmatch(str(error))
    text, path = (placed[1], placed[2]) if placed is not None else (str(error), "")
    node = _at(root, _concrete(path, str(error), value, convert))
    unknown = _UNKNOWN_KEY.fullmatch(text)
    if unknown is not None:
        word = unknown[1]
        node = _key(node, word) or node
        text = f"`{word}` is not a known key{near(word, _fields(kind))}"
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    return RequestError(f"{name}:{line}:{column}: {text}")


def near(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean `x`?" for the one of *names* that is like *word*, or nothing."""
    found = get_close_matches(word, list(names), 1)
    return f"; did you mean `{found[0]}`?" if found else ""


def words(node: yaml.Node, depth: int = 0) -> Iterator[yaml.ScalarNode]:
    """Yield the words of a document that was read before, in their order."""
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif depth <= _DEEPEST:  # Why: a node may hold itself
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                yield from words(part, depth + 1)


def _concrete(path: str, message: str, value: Any, convert: Convert) -> Trail:
    """Return the keys and indices of *path*, as far as *value* has them.

    msgspec writes `[...]` for a key of a mapping; the key is the one that, left alone there,
    still gives the same message.
    """
    trail: Trail = ()
    here = value
    for found in _STEP.finditer(path):
        key, index = found[1], found[2]
        step: str | int | None = key
        if index is not None and index.isdigit():
            step = int(index)
        elif key is None and isinstance(here, dict):
            step = next((k for k in here if _fails(value, (*trail, k), message, convert)), None)
        if step is None or not _has(here, step):
            return trail
        here = here[step]
        trail = (*trail, step)
    return trail


def _has(here: Any, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(here, list) and step < len(here)
    return isinstance(here, dict) and step in here


def _fails(value: Any, trail: Trail, message: str, convert: Convert) -> bool:
    try:
        convert(_alone(value, trail))
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _alone(value: Any, trail: Trail) -> Any:
    """Return *value* where the mapping at the end of *trail* keeps one key only."""
    if len(trail) == 1:
        return {trail[0]: value[trail[0]]}
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[trail[0]] = _alone(value[trail[0]], trail[1:])
    return copy


def _at(root: yaml.Node, trail: Trail) -> yaml.Node:
    """Return the node at the end of *trail*, or the nearest one above it."""
    node = root
    for step in trail:
        following: yaml.Node | None = None
        if isinstance(step, str):
            following = _value(node, step)
        elif isinstance(node, yaml.SequenceNode) and step < len(node.value):
            following = node.value[step]
        if following is None:
            return node
        node = following
    return node


def _value(node: yaml.Node, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _key(node: yaml.Node, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((name for name, _ in node.value if name.value == key), None)


def _fields(kind: type) -> list[str]:
    """Every key a file of this kind may have, for the suggestion."""
    seen: dict[str, None] = {}
    pending, done = [kind], set()
    while pending:
        current = pending.pop()
        if current in done:
            continue
        done.add(current)
        for field in _struct_fields(current):
            seen[field.encode_name] = None
            pending.extend(_structs(field.type))
    return list(seen)


def _struct_fields(kind: type) -> tuple[msgspec.structs.FieldInfo, ...]:
    try:
        return msgspec.structs.fields(kind)
    except TypeError:
        return ()


def _structs(annotation: Any) -> list[type]:
    found = [annotation] if isinstance(annotation, type) else []
    for part in getattr(annotation, "__args__", ()):
        found.extend(_structs(part))
    return found
