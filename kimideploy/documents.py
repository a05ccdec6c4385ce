"""Strict reading of YAML and JSON: a value of the type asked for, or an error with its place.

YAML is read as JSON's superset and no more: `true`, `false`, `null` and numbers are what they
look like, everything else is text. Duplicate keys, unknown keys and aliases that blow up are
errors at FILE:LINE:COLUMN.

A text that is JSON is read as JSON, which is faster; what is wrong with it is told as for YAML.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from kimideploy.errors import RequestError
from kimideploy.places import explained, words
from kimideploy.quantities import Bytes, parse_bytes

T = TypeVar("T")

#: a file is written by people; what is larger or deeper is a mistake or an attack
LARGEST = 8 << 20
DEEPEST = 64
MOST_VALUES = 400_000
#: what the canonical JSON of a value can hold
LARGEST_NUMBER = (1 << 63) - 1
#: composing recurses in C; this many levels are far from the end of any stack
_SAFE_LEVELS = 2_500

_TAGS = "tag:yaml.org,2002:"
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40}|(?=[eE]))([eE][-+]?[0-9]{1,3})?", re.ASCII
)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
#: what begins a line of nested blocks: indentation and the signs of sequences and mappings
_INDENT = re.compile(r"^[\s?:-]+", re.MULTILINE)
_UNTEXT = re.compile("[\x00\ud800-\udfff]")
_ESCAPED = re.compile("\\\\u(?:0000|[dD][89a-fA-F])|[\ud800-\udfff]")


class _Loader(_SAFE_LOADER):  # type: ignore[misc]  # the stubs don't know which one it is
    """The safe loader without YAML 1.1's guesses at types: `_Plain` decides what a word is."""

    def resolve(self, kind: type[yaml.Node], value: object, implicit: object) -> str:  # noqa: ARG002
        """Return the tag of a node that has none of its own."""
        if kind is yaml.ScalarNode:
            return f"{_TAGS}str"
        return f"{_TAGS}{'seq' if kind is yaml.SequenceNode else 'map'}"

    def descend_resolver(self, *_: object) -> None:
        """Nothing depends on where a node stands."""

    def ascend_resolver(self) -> None:
        """Nothing depends on where a node stands."""


def read_document(text: str, kind: type[T], *, name: str) -> T:
    """Return *text* as a *kind*; raises RequestError that starts with NAME:LINE:COLUMN."""

    def convert(value: Any) -> T:
        return msgspec.convert(value, kind, strict=True, dec_hook=_hook)

    value = _from_json(text)
    if value is not None:
        try:
            return convert(value)
        except (msgspec.ValidationError, RecursionError):
            pass  # the nodes know where
    root = _root(text, name)
    value = _Plain(name).value(root, 0)
    try:
        return convert(value)
    except msgspec.ValidationError as error:
        raise explained(error, value, root, kind=kind, name=name, convert=convert) from error


def place_of(text: str, word: str, *, name: str) -> str:
    """Return NAME:LINE:COLUMN of the first value or key *word* in a text that was read."""
    node = next((n for n in words(_root(text, name)) if n.value == word), None)
    line, column = (node.start_mark.line, node.start_mark.column) if node is not None else (0, 0)
    return f"{name}:{line + 1}:{column + 1}"


def _hook(kind: type, value: Any) -> Any:
    if kind is not Bytes:
        raise NotImplementedError(kind)
    amount = parse_bytes(value) if isinstance(value, str) else value
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount <= LARGEST_NUMBER:
        return Bytes(amount)
    raise ValueError("Expected an amount such as `139.8 GiB` or a number of bytes")


def _from_json(text: str) -> Any:
    """Return what *text* is as JSON; None where the nodes must be asked."""
    if text[:1] not in ("{", "[") or len(text) > LARGEST:
        return None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_no_constant,
        )
        # Why: a pair of surrogates is one character, half a pair is none
        odd = _ESCAPED.search(text) and _ESCAPED.search(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return None
    return value if not odd else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _number(digits: str) -> int | float | str:
    """Return the number that *digits* are, or *digits* if no number here is as large."""
    if _INTEGER.fullmatch(digits):
        return int(digits) if abs(int(digits)) <= LARGEST_NUMBER else digits
    if _FLOAT.fullmatch(digits) and math.isfinite(float(digits)):
        return float(digits)
    return digits


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _root(text: str, name: str) -> yaml.Node:
    root = _compose(text, name)
    if root is None:
        raise RequestError(f"{name}:1:1: the file is empty")
    return root


def _compose(text: str, name: str) -> yaml.Node | None:
    if len(text) > LARGEST:
        raise RequestError(f"{name}:1:1: the file is larger than {LARGEST >> 20} MiB")
    try:
        text.encode("utf-8")
        if _may_be_deep(text):
            _check_depth(text, name)
        return yaml.compose(text, Loader=_Loader)
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


def _may_be_deep(text: str) -> bool:
    """Whether the signs that open a level could nest too deeply, wherever they stand."""
    flow = text.count("[") + text.count("{")
    block = max((len(indent) for indent in _INDENT.findall(text)), default=0)
    return flow + block > _SAFE_LEVELS


def _check_depth(text: str, name: str) -> None:
    """Refuse what would overrun the C stack: composing recurses, reading events does not."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
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
            word = self._text(key)
            if word in result:
                _fail(self.name, key, f"`{word}` is given twice")
            result[word] = self.value(item, depth + 1)
        return result

    def _text(self, node: yaml.Node) -> str:
        text = str(node.value)
        if _UNTEXT.search(text) is not None:
            _fail(self.name, node, "a character here is none that a text may hold")
        return text

    def _scalar(self, node: yaml.Node) -> Any:
        text = self._text(node)
        # Why both: the C parser gives a plain word the style "", the Python one None.
        if getattr(node, "style", None) not in (None, ""):
            return text
        if text in _WORDS:
            return _WORDS[text]
        return _number(text)
