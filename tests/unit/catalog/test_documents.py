"""Reading YAML and JSON: a value of the type asked for, or an error with its place."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kimideploy import documents
from kimideploy.catalog.load import SHAPES
from kimideploy.catalog.types import Profile
from kimideploy.documents import place_of, read_document
from kimideploy.errors import RequestError
from kimideploy.planning.types import NoFit, Plan
from kimideploy.quantities import GIB, Bytes

PLACED = re.compile(r"a\.yaml:[1-9][0-9]*:[1-9][0-9]*: .+", re.DOTALL)


class Part(Profile, frozen=True, kw_only=True):
    """A part of a whole."""

    name: str
    size: Bytes | None = None
    count: int | None = None
    ratio: float | None = None
    ready: bool | None = None


class Whole(Profile, frozen=True, kw_only=True):
    """A document with every kind of nesting the profiles have."""

    title: str
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = msgspec.field(default_factory=dict)


def complaint(text: str, kind: Any) -> str | None:
    """Return the message *text* is refused with, None if it is a *kind*."""
    try:
        read_document(text, kind, name="a.yaml")
    except RequestError as error:
        return error.message
    return None


def refusal(text: str, kind: Any = Whole) -> str:
    """Return the message *text* is refused with; it begins with its place."""
    message = complaint(text, kind)
    assert message is not None
    assert PLACED.fullmatch(message)
    return message


def test_sizes_carry_their_unit() -> None:
    """A size is a number of bytes, or a number with a unit."""
    sizes_of = "{name: a, size: 139.8 GiB}, {name: b, size: 595 GB}, {name: c, size: 12}"
    text = f"title: t\nparts: [{sizes_of}]"

    sizes = [part.size for part in read_document(text, Whole, name="a.yaml").parts]

    assert [int(139.8 * GIB), 595 * 10**9, 12] == sizes


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("2026-09-05", "2026-09-05"),
        ("0x10", "0x10"),
        ("012", "012"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1e999", "1e999"),
        ("9" * 30, "9" * 30),
        ("true", True),
        ("~", None),
        ("17", 17),
        ("-0.5", -0.5),
        ("1e3", 1000.0),
        ('"17"', "17"),
        ("'true'", "true"),
    ],
)
def test_words_are_what_they_look_like(word: str, value: object) -> None:
    """Only true, false, null and numbers are special; no dates, no yes, no octal."""
    assert {"a": value} == read_document(f"a: {word}\n", dict[str, Any], name="a.yaml")


def test_unknown_key_is_suggested_in_its_place() -> None:
    """A key with a slip is told with its line, its column and the key that was meant."""
    text = "title: t\nparts:\n  - name: a\n    cuont: 3\n"

    assert "a.yaml:4:5: `cuont` is not a known key; did you mean `count`?" == refusal(text)


def test_key_given_twice_is_refused_at_the_second() -> None:
    """The later of two equal keys is the one that is pointed at, in YAML and in JSON."""
    assert "a.yaml:2:1: `title` is given twice" == refusal("title: a\ntitle: b\n")
    assert "a.yaml:1:16: `title` is given twice" == refusal('{"title": "a", "title": "b"}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: 3\n", "a.yaml:1:8: Expected `str`, got `int`"),
        (
            "title: t\nnamed:\n  x: {name: a}\n  y: {name: b, count: many}\n",
            "a.yaml:4:23: Expected `int | null`, got `str`",
        ),
        (
            "title: t\nparts:\n  - name: a\n  - {name: b, ready: 1}\n",
            "a.yaml:4:22: Expected `bool | null`, got `int`",
        ),
        (
            "title: t\nparts:\n  - {name: a, size: 3 lightyears}\n",
            "a.yaml:3:21: '3 lightyears' has an unknown unit 'lightyears'; use GB or GiB",
        ),
        ("parts: []\n", "a.yaml:1:1: Object missing required field `title`"),
        ('{"title": "t",\n "parts": [{"name": 7}]}', "a.yaml:2:21: Expected `str`, got `int`"),
        ("- a\n- b\n", "a.yaml:1:1: Expected `object`, got `array`"),
        ("", "a.yaml:1:1: the file is empty"),
        ("title: [a\n", "a.yaml:2:1: did not find expected ',' or ']'"),
        ("title: !!python/name:os.system\n", "a.yaml:1:8: the tag"),
        ("title: !secret x\n", "a.yaml:1:8: the tag '!secret' is not read here"),
        ("? [a, b]\n: c\n", "a.yaml:1:3: a key must be a word"),
        ('title: "a\\0b"\n', "a.yaml:1:8: a character here is none that a text may hold"),
        ('{"title": "a\\u0000b"}', "a.yaml:1:11: a character here is none that a text may hold"),
    ],
)
def test_what_is_wrong_is_told_in_its_place(text: str, message: str) -> None:
    """Types, amounts, syntax, tags and characters are refused where they stand."""
    assert refusal(text).startswith(message)


def test_keys_that_look_like_paths_are_only_keys() -> None:
    """A key may be spelled like msgspec's own path without misleading anything."""
    assert refusal('title: t\n"zz` - at `$.named[...]": 1\n').startswith("a.yaml:")
    assert refusal('title: t\n"x` - at `$.title[0].y": 1\n').startswith("a.yaml:")


def test_aliases_do_not_multiply() -> None:
    """A billion laughs end early, and a node that holds itself is too deep."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 9):
        laughs += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"

    assert refusal(laughs, dict[str, Any]).endswith("the file holds too many values")
    assert refusal("a: &a [*a]\n", dict[str, Any]).endswith("nested more than 64 deep")


@pytest.mark.parametrize("sign", ["[", '{"a":', "- ", "? ", "[[", "- ? "])
@pytest.mark.parametrize("times", [100, 100_000])
def test_depth_is_an_error_and_no_crash(sign: str, times: int) -> None:
    """Nesting that would end the stack is refused, however it is written."""
    refusal(sign * times, Any)


def test_size_is_limited() -> None:
    """A file of more than 8 MiB is not parsed at all."""
    assert refusal("#" * (documents.LARGEST + 1)).endswith("larger than 8 MiB")


def test_halves_of_characters_are_refused_and_wholes_read() -> None:
    """A pair of surrogates in JSON is one character; half a pair is none."""
    assert {"a": "😀"} == read_document('{"a": "\\ud83d\\ude00"}', dict[str, Any], name="a.yaml")
    refusal('{"a": "\\ud83d"}', dict[str, Any])
    refusal("a: \ud83d\n", dict[str, Any])


def test_number_no_machine_has_is_refused() -> None:
    """A size that canonical JSON can't hold is told in its place."""
    text = "title: t\nparts:\n  - {name: a, size: 99999999999 TiB}\n"

    assert refusal(text).startswith("a.yaml:3:21: Expected an amount")


def test_place_of_a_word() -> None:
    """The place of a word is that of the value or key that is spelled so."""
    assert "f:2:5" == place_of("a: 1\nb: [x, y]\n", "x", name="f")
    assert "f:2:1" == place_of("a: 1\nb: [x, y]\n", "b", name="f")
    assert "f:1:1" == place_of("a: 1\n", "nowhere", name="f")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain, max_size=5), st.booleans())
def test_json_is_read_as_json_reads_it(value: dict[str, Any], ascii_only: bool) -> None:
    """Whatever JSON can say comes back as it was, or is refused for a NUL."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "\\u0000" in text:
        return

    assert value == read_document(text, dict[str, Any], name="a.yaml")


@given(
    st.text(alphabet=st.characters(exclude_categories=()))
    | st.text("[]{}:,-?&*!|>'\"%#@` \n\t\0a1~.é\ud800")
)
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    """No text ends in anything but a value or a RequestError with a place."""
    for kind in (Whole, Any, dict[str, Part]):
        message = complaint(text, kind)

        assert message is None or PLACED.fullmatch(message)


@given(st.sampled_from(sorted(SHAPES)), st.dictionaries(st.text(), plain, max_size=5))
def test_any_mapping_is_a_profile_or_a_refusal(shape: str, value: dict[str, Any]) -> None:
    """Every kind of profile refuses what it is not with a place."""
    message = complaint(yaml.safe_dump(value, allow_unicode=True), SHAPES[shape])

    assert message is None or PLACED.fullmatch(message)


def test_a_union_is_told_apart_by_its_tag() -> None:
    """What plans are saved as is refused with the tags that are known."""
    kind: Any = Plan | NoFit

    assert "a.yaml:1:14: Invalid value 'maybe'" == refusal('{"decision": "maybe"}', kind)
