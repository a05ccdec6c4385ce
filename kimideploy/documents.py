"""Strict reading of YAML and JSON: a value of the type asked for, or an error with its place.

YAML is read as JSON's superset and no more: `true`, `false`, `null` and numbers are what they
look like, everything else is text. Duplicate keys, unknown keys and aliases that blow up are
errors at FILE:LINE:COLUMN.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from kimideploy.errors import RequestError
from kimideploy.quantities import Bytes, parse_bytes

T = TypeVar("T")

#: a file is written by people; what is larger or deeper is a mistake or an attack
LARGEST = 8 << 20
DEEPEST = 64
MOST_VALUES = 400_000
#: a shorter text can't be nested so deeply that composing it overruns the stack
_SAFE_LENGTH = 10_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_STEP = re.compile(r"\.\.\.|\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `([^`]*)`")


def read_document(text: str, kind: type[T], *, name: str) -> T:
    """Return *text* as a *kind*; raises RequestError that starts with NAME:LINE:COLUMN."""
    root = _compose(text, name)
    if root is None:
        raise RequestError(f"{name}:1:1: the file is empty")
    plain = _Plain(name)
    value = plain.value(root, 0)
    try:
        return msgspec.convert(value, kind, strict=True, dec_hook=_hook)
    except msgspec.ValidationError as error:
        raise _explained(error, value, root, kind, name) from error


def _hook(kind: type, value: Any) -> Any:
    if kind is not Bytes:
        raise NotImplementedError(kind)
    if isinstance(value, str):
        return Bytes(parse_bytes(value))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Bytes(value)
    raise ValueError("Expected an amount such as `139.8 GiB` or a number of bytes")


def _compose(text: str, name: str) -> yaml.Node | None:
    if len(text) > LARGEST:
        raise RequestError(f"{name}:1:1: the file is larger than {LARGEST >> 20} MiB")
    try:
        text.encode("utf-8")
        if len(text) > _SAFE_LENGTH:
            _check_depth(text, name)
        return yaml.compose(text, Loader=_LOADER)
    except UnicodeError as error:
        raise RequestError(f"{name}:1:1: the file is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = error.problem or error.context or "this is no YAML"
        raise RequestError(f"{name}:{line}:{column}: {problem}") from error
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0] if str(error) else "this is no YAML"
        raise RequestError(f"{name}:1:1: {first}") from error
    except RecursionError as error:
        raise RequestError(f"{name}:1:1: the file is nested too deeply") from error


def _check_depth(text: str, name: str) -> None:
    """Refuse what would overrun the C stack: composing recurses, reading events does not."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            raise RequestError(f"{name}:{line}:1: the file is nested more than {DEEPEST} deep")


def _fail(name: str, node: yaml.Node, message: str) -> NoReturn:
    raise RequestError(f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {message}")


class _Plain:
    """Turns nodes into dicts, lists and scalars, counting what aliases multiply."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            _fail(self.name, node, "the file holds too many values")
        if depth > DEEPEST:
            _fail(self.name, node, f"the file is nested more than {DEEPEST} deep")
        if not node.tag.startswith(_TAGS) or "python" in node.tag:
            _fail(self.name, node, f"the tag {node.tag!r} is not read here")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _fail(self.name, key, "a key must be a word")
            if key.value in result:
                _fail(self.name, key, f"`{key.value}` is given twice")
            result[key.value] = self.value(item, depth + 1)
        return result

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        # Why both: the C parser gives a plain word the style "", the Python one None.
        if getattr(node, "style", None) not in (None, ""):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return text


def _explained(
    error: msgspec.ValidationError, value: Any, root: yaml.Node, kind: type, name: str
) -> RequestError:
    """Turn msgspec's "… - at `$.a[0].b`" into the place in the file."""
    text, _, path = str(error).partition(" - at `")
    node = _at(root, _concrete(path.rstrip("`"), str(error), value, kind))
    unknown = _UNKNOWN_KEY.fullmatch(text)
    if unknown is not None:
        word = unknown[1]
        node = _key(node, word) or node
        near = get_close_matches(word, _fields(kind), 1)
        text = f"`{word}` is not a known key" + (f"; did you mean `{near[0]}`?" if near else "")
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    return RequestError(f"{name}:{line}:{column}: {text}")


Trail = tuple[str | int, ...]


def _concrete(path: str, message: str, value: Any, kind: type) -> Trail:
    """Return the keys and indices of *path*.

    msgspec writes `[...]` for a key of a mapping; the key is the one that, left alone there,
    still gives the same message.
    """
    trail: Trail = ()
    for step in _STEP.finditer(path.removeprefix("key in ").removeprefix("$")):
        key, index = step[1], step[2]
        if key is not None:
            trail = (*trail, key)
        elif index is not None and index.isdigit():
            trail = (*trail, int(index))
        else:
            here = _inside(value, trail)
            keys = list(here) if isinstance(here, dict) else []
            guilty = next((k for k in keys if _fails(value, (*trail, k), message, kind)), None)
            if guilty is None:
                return trail
            trail = (*trail, guilty)
    return trail


def _fails(value: Any, trail: Trail, message: str, kind: type) -> bool:
    try:
        msgspec.convert(_alone(value, trail), kind, strict=True, dec_hook=_hook)
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


def _inside(value: Any, trail: Trail) -> Any:
    for step in trail:
        value = value[step]
    return value


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
