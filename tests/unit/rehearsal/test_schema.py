"""Arguments made for a schema, held against a validator of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.rehearsal.schema import arguments, example

KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def wrong(value: Any, schema: dict[str, Any]) -> str | None:
    """Return what of *schema* the value breaks, None if nothing."""
    if "enum" in schema:
        return None if value in schema["enum"] else "enum"
    kind = schema["type"]
    fits: bool = isinstance(value, KINDS[kind])
    if not fits or (kind != "boolean" and isinstance(value, bool)):
        return f"type {kind}"
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    limits: dict[str, bool] = {}
    if kind in ("integer", "number"):
        limits = {
            "range": least <= value <= most,
            "above": value > schema.get("exclusiveMinimum", value - 1),
            "below": value < schema.get("exclusiveMaximum", value + 1),
            "multiple": value % schema.get("multipleOf", 1 if kind == "integer" else value or 1)
            == 0,
        }
    elif kind == "string":
        limits = {"length": schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)}
    elif kind == "array":
        count = len(value)
        limits = {"items": schema.get("minItems", 0) <= count <= schema.get("maxItems", count)}
        limits |= {f"item {i}": not wrong(item, schema["items"]) for i, item in enumerate(value)}
        if schema.get("uniqueItems"):
            texts = {json.dumps(item, sort_keys=True) for item in value}
            limits["unique"] = len(texts) == count
    elif kind == "object":
        names = {*schema["required"]}
        limits = {"required": names <= set(value), "min": len(value) >= schema["minProperties"]}
        inner = schema["properties"]
        limits |= {f"key {key}": not wrong(item, inner[key]) for key, item in value.items()}
    return next((limit for limit, held in limits.items() if not held), None)


def ranges(low: str, high: str, numbers: st.SearchStrategy[Any], width: int) -> Any:
    """Draw a lower and an upper bound, each of which may be missing."""
    pair = numbers.flatmap(
        lambda least: st.tuples(st.just(least), st.integers(width, 50).map(lambda w: least + w))
    )
    return pair.flatmap(
        lambda found: st.sampled_from(
            [{}, {low: found[0]}, {high: found[1]}, dict(zip((low, high), found, strict=True))]
        )
    )


numbers = st.integers(-100, 100)
simple = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.text(max_size=4), min_size=1, max_size=4, unique=True).map(lambda e: {"enum": e}),
    ranges("minLength", "maxLength", st.integers(0, 40), 0).map(lambda b: {"type": "string", **b}),
    ranges("minimum", "maximum", numbers, 0).map(lambda b: {"type": "integer", **b}),
    ranges("exclusiveMinimum", "exclusiveMaximum", numbers, 2).map(
        lambda b: {"type": "integer", **b}
    ),
    ranges("minimum", "maximum", numbers.map(lambda n: n / 4), 0).map(
        lambda b: {"type": "number", **b}
    ),
    ranges("exclusiveMinimum", "exclusiveMaximum", numbers.map(lambda n: n / 4), 1).map(
        lambda b: {"type": "number", **b}
    ),
    ranges("minimum", "maximum", numbers, 9).map(
        lambda b: {"type": "integer", "multipleOf": 5, **b}
    ),
)


def lists(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of lists and objects over *inner*."""
    array = st.builds(
        lambda items, counts: {"type": "array", "items": items, **counts},
        inner,
        ranges("minItems", "maxItems", st.integers(0, 4), 0),
    )
    named = st.dictionaries(st.text(max_size=5), inner, max_size=4)
    made = named.flatmap(
        lambda properties: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(properties),
                "required": st.lists(st.sampled_from(sorted(properties)), unique=True)
                if properties
                else st.just([]),
                "minProperties": st.integers(0, len(properties)),
            }
        )
    )
    return array | made


schemas = st.recursive(simple, lists, max_leaves=8)


@given(schemas)
def test_an_example_is_valid(schema: dict[str, Any]) -> None:
    """What is made for a schema keeps all of it."""
    made = example(schema)

    assert None is wrong(made, schema), made


def test_what_is_combined() -> None:
    """References, allOf, anyOf, const and lists of types are followed."""
    schema = {
        "$defs": {"city": {"type": "string", "enum": ["Tokyo"]}},
        "type": "object",
        "allOf": [
            {"properties": {"unit": {"const": "C"}}, "required": ["unit"]},
            {"properties": {"days": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
        ],
        "properties": {"city": {"$ref": "#/$defs/city"}, "note": {"type": ["null", "string"]}},
        "required": ["city", "days", "note"],
    }

    made = json.loads(arguments(schema))

    assert {"city", "unit", "days", "note"} == set(made)
    assert ("Tokyo", "C", 1) == (made["city"], made["unit"], made["days"])
    assert isinstance(made["note"], str)


def test_unlike_items_differ() -> None:
    """A list of unlike items has them."""
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "uniqueItems": True}

    assert ["a", "b"] == example(schema)


BRANCHING = {"$ref": "#/$defs/n"}
CYCLE = {
    "$defs": {"n": {"type": "object", "properties": {"l": BRANCHING, "r": BRANCHING},
                    "required": ["l", "r"], "allOf": [BRANCHING, BRANCHING]}},
    **BRANCHING,
}  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        5,
        [],
        {"type": 5},
        {"type": "object", "required": 7, "properties": []},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"type": "integer", "minimum": 10**400},
        {"type": "number", "multipleOf": 5e-324, "minimum": float("inf")},
        {"type": "string", "minLength": 10**12},
        {"type": "array", "minItems": 10**12, "items": {"type": "array", "minItems": 10**12}},
        CYCLE,
    ],
    ids=str,
)
def test_a_schema_that_makes_no_sense(schema: Any) -> None:
    """Whatever stands for a schema, arguments are an object, soon and of a bearable size."""
    made = arguments(schema)

    assert isinstance(json.loads(made), dict)
    assert len(made) < 1 << 20
