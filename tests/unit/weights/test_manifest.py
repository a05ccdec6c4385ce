"""Manifests are hostile: names, sizes and hashes that could do harm are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.errors import WeightsError
from kimideploy.weights.manifest import Item, Manifest, checked, decode, encode, safe

SHA, COMMIT = "ab" * 32, "0123456789" * 4


def manifest(*items: Item, repo: str = "org/name", **more: str) -> Manifest:
    """Return a manifest of *items*."""
    return Manifest(repo, more.get("revision", COMMIT), items, more.get("quant"))


def item(path: str, size: int = 1) -> Item:
    """Return an item with a hash."""
    return Item(path, size, sha256=SHA)


@pytest.mark.parametrize(
    "path",
    [
        "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "", "a/", "..", ".ssh/id", "~/x",
        "a\\b", "C:x", "a\0b", "a\nb", "a\x1bb", "a" * 300, "a/" * 600 + "b", ".kimideploy/x",
        "a?b", "a*b", "a|b", "x ", "x.", "\u202ea",
    ],
)  # fmt: skip
def test_names_that_could_leave(path: str) -> None:
    """A name that leaves the folder, steers a terminal or means another file is refused."""
    assert not safe(path)
    with pytest.raises(WeightsError, match="is refused"):
        checked(manifest(item(path)))


@pytest.mark.parametrize(
    "path", ["model-00001-of-000064.safetensors", "UD-Q2_K_XL/a b.gguf", "ä.json", "a+b@c.py"]
)
def test_names_of_real_files(path: str) -> None:
    """What the hub's repositories are full of is let through."""
    assert safe(path)


@given(st.text(max_size=80))
def test_safe_names_stay_inside(path: str) -> None:
    """Whatever is called safe resolves to a place below its folder."""
    if safe(path):
        assert Path("/store").resolve() in (Path("/store") / path).resolve().parents


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (manifest(item("a", 10**18)), "can't have"),
        (manifest(item("a", -1)), "can't have"),
        (manifest(item("a", 6 * 10**13), item("b", 6 * 10**13)), "comes to"),
        (manifest(item("a"), item("A")), "one file on some systems"),
        (manifest(item("a"), item("a/b")), "a file and a folder"),
        (manifest(Item("a", 1)), "no hash"),
        (manifest(Item("a", 1, sha256="zz")), "no hash"),
        (manifest(Item("a", 1, oid="12")), "no hash"),
        (manifest(Item("a", 1, sha256=SHA, xet="../x")), "xet store"),
        (manifest(item("pytorch_model.bin")), "a pickle runs code"),
        (manifest(item("x.PT")), "a pickle runs code"),
        (manifest(), "names no files"),
        (manifest(item("a"), repo="../.."), "no name of a repository"),
        (manifest(item("a"), repo="a/..b"), "no name of a repository"),
        (manifest(item("a"), revision="main"), "is no commit"),
        (manifest(item("a"), quant="../q"), "no name of a quant"),
    ],
)
def test_what_is_refused(given_: Manifest, said: str) -> None:
    """Sizes, twins, missing hashes, pickles and names are refused in plain words."""
    with pytest.raises(WeightsError, match=said):
        checked(given_)


def test_round_trip() -> None:
    """What is written is read again, the same bytes every time."""
    one = manifest(item("a"), Item("b", 2, oid="0" * 40))

    assert one == decode(encode(one), name="x")
    assert encode(one) == encode(decode(encode(one), name="x"))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(),
       lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
           lambda value: json.dumps(value).encode()))  # fmt: skip
def test_nothing_but_a_refusal(data: bytes) -> None:
    """Any bytes are a manifest or a WeightsError."""
    try:
        decode(data, name="x")
    except WeightsError as error:
        assert error.message  # noqa: PT017


def test_an_unknown_schema() -> None:
    """A manifest of a later version is not guessed at."""
    text = encode(manifest(item("a"))).replace(b"weights/1", b"weights/9")
    with pytest.raises(WeightsError, match="weights/9"):
        decode(text, name="x")
