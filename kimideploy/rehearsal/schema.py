"""A value that is valid for a JSON schema, the same one every time.

`pattern`, `not`, `if` and `contains` are not honoured: a stand-in makes arguments for the usual
tools, it is no solver.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEEPEST = 24
#: schemas one answer looks at; a schema that contains itself twice would never end
_MOST_SCHEMAS = 2000
#: the longest string and list that are made, whatever the schema asks for
_MOST_CHARACTERS, _MOST_ITEMS = 4096, 64
#: numbers beyond it are no bounds
_MOST = 1e15
_TEXT = "print(6 * 7)"
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def arguments(schema: Any) -> str:
    """Return the JSON text of a tool's arguments, always an object, valid for *schema*."""
    value = example(schema)
    text = value if isinstance(value, dict) else {}
    return json.dumps(text, ensure_ascii=False, separators=(",", ":"))


def example(schema: Any) -> Any:
    """Return a value that is valid for *schema*; one that makes no sense gives None."""
    return _value(schema, _Root(schema), 0, 0)


@dataclass(slots=True)
class _Root:
    """The whole schema, which references point into, and how much more may be looked at."""

    schema: Any
    left: int = _MOST_SCHEMAS


def _value(schema: Any, root: _Root, depth: int, turn: int) -> Any:  # noqa: PLR0911  a kind each
    """`turn` numbers the items of a list, so that they can differ."""
    schema = _resolved(schema, root, depth)
    if not schema:
        return None
    if "const" in schema:
        return schema["const"]
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[turn % len(options)]
    match _kind(schema):
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "integer":
            return _number(schema, whole=True) + turn
        case "number":
            return _number(schema, whole=False) + turn
        case "boolean":
            return True
        case "string":
            return _string(schema, turn)
        case _:
            return None


def _resolved(given: Any, root: _Root, depth: int) -> dict[str, Any]:
    """Follow references and join what is combined, until plain keywords are left."""
    root.left -= 1
    if not isinstance(given, dict) or depth > _DEEPEST or root.left < 0:
        return {}
    schema: dict[str, Any] = given
    for _ in range(_DEEPEST):
        if isinstance(schema.get("$ref"), str):
            schema = _rest(schema, "$ref") | _target(schema["$ref"], root.schema)
        elif _list(schema, "allOf"):
            joined = _rest(schema, "allOf")
            for part in _list(schema, "allOf"):
                joined = _joined(joined, _resolved(part, root, depth + 1))
            schema = joined
        elif choice := next((key for key in ("anyOf", "oneOf") if _list(schema, key)), None):
            first = _list(schema, choice)[0]
            schema = _joined(_rest(schema, choice), first if isinstance(first, dict) else {})
        else:
            break
    return schema


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both schemas at once; properties and required names add up."""
    joined = {**one, **other}
    properties = {**_dict(one, "properties"), **_dict(other, "properties")}
    required = [*_list(one, "required"), *_list(other, "required")]
    return (
        joined
        | ({"properties": properties} if properties else {})
        | ({"required": required} if required else {})
    )


def _target(reference: str, root: Any) -> dict[str, Any]:
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if key:
            found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _kind(schema: Mapping[str, Any]) -> str | None:
    named = schema.get("type")
    if isinstance(named, list):
        named = next((kind for kind in named if kind != "null"), None)
    if isinstance(named, str):
        return named
    signs = {"properties": "object", "required": "object", "items": "array"}
    signs |= {"minimum": "number", "minLength": "string", "format": "string"}
    return next((kind for sign, kind in signs.items() if sign in schema), "string")


def _object(schema: Mapping[str, Any], root: _Root, depth: int) -> dict[str, Any]:
    properties = _dict(schema, "properties")
    others = schema.get("additionalProperties")
    names = [name for name in _list(schema, "required") if isinstance(name, str)]
    spare = [name for name in properties if name not in names]
    names += spare[: max(0, _whole(schema, "minProperties", 0) - len(names))]
    return {
        name: _value(properties.get(name, others or {"type": "string"}), root, depth + 1, 0)
        for name in dict.fromkeys(names)
    }


def _array(schema: Mapping[str, Any], root: _Root, depth: int) -> list[Any]:
    first = _list(schema, "prefixItems")
    least = _whole(schema, "minItems", len(first) or 1)
    count = min(least, _whole(schema, "maxItems", least), _MOST_ITEMS)
    rest = schema.get("items", {"type": "string"})
    unlike = schema.get("uniqueItems") is True
    return [
        _value(first[i] if i < len(first) else rest, root, depth + 1, i if unlike else 0)
        for i in range(count)
    ]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    """1 where the bounds allow it, else the bound next to it."""
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    lows = [math.ceil(low) if whole else low] if low is not None else []
    highs = [math.floor(high) if whole else high] if high is not None else []
    if above is not None:
        lows.append(math.floor(above) + 1 if whole else math.nextafter(above, math.inf))
    if below is not None:
        highs.append(math.ceil(below) - 1 if whole else math.nextafter(below, -math.inf))
    value = min([max([1, *lows]), *highs])
    step = _bound(schema, "multipleOf")
    if step is not None and step > 0 and abs(value) / step < _MOST:
        value = math.ceil(value / step) * step
        value = value - step if highs and value > min(highs) else value
    return value


def _string(schema: Mapping[str, Any], turn: int) -> str:
    text = _FORMATS.get(str(schema.get("format")), _TEXT)
    text = f"{text}{turn}" if turn else text
    least = min(_whole(schema, "minLength", 0), _MOST_CHARACTERS)
    return text.ljust(least, "x")[: _whole(schema, "maxLength", _MOST_CHARACTERS)]


def _bound(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_MOST < value < _MOST else None


def _whole(schema: Mapping[str, Any], key: str, default: int) -> int:
    value = schema.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return default
    return value


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _dict(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _rest(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}
