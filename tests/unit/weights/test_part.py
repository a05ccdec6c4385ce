"""A part and its ledger: what was written is taken up again, what does not prove itself is not."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.weights.manifest import Item
from kimideploy.weights.part import BLOCK, Part, Span

DATA = random.Random(0).randbytes(3 * BLOCK + 12_345)
ITEM = Item("x.safetensors", len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def part(folder: Path, item: Item = ITEM) -> Part:
    """Return the part of *item* below *folder*, opened."""
    found = Part(item, folder / "x")
    found.open()
    return found


def put(target: Part, start: int, end: int, piece: int = 300_000) -> None:
    """Write bytes as a worker does, a piece at a time."""
    span = Span(target, start, end)
    for at in range(start, end, piece):
        target.write(span, memoryview(DATA)[at : min(at + piece, end)])


def test_in_one_go(tmp_path: Path) -> None:
    """All bytes in order make a file that matches and gets its name, without leftovers."""
    one = part(tmp_path)
    put(one, 0, len(DATA))

    assert one.complete
    assert one.matches()
    one.publish(tmp_path / "sub" / "x.safetensors")
    assert DATA == (tmp_path / "sub" / "x.safetensors").read_bytes()
    assert ["sub"] == [path.name for path in tmp_path.iterdir()]


def test_taken_up_again(tmp_path: Path) -> None:
    """Whole blocks of a run that ended are kept; the bytes after the last of them are not."""
    first = part(tmp_path)
    put(first, 0, BLOCK + 100)
    first.close()
    second = part(tmp_path)

    assert BLOCK == second.have == second.kept
    assert [(BLOCK, len(DATA))] == second.gaps()
    put(second, BLOCK, len(DATA))
    assert second.complete
    assert second.matches()
    second.close()


def test_out_of_order(tmp_path: Path) -> None:
    """Blocks that come before the ones ahead of them are hashed when these have come."""
    one = part(tmp_path)
    put(one, 2 * BLOCK, len(DATA))
    put(one, BLOCK, 2 * BLOCK)
    assert not one.complete
    assert [(0, BLOCK)] == one.gaps()
    put(one, 0, BLOCK)

    assert one.complete
    assert one.matches()
    one.close()


def test_a_flipped_bit_on_the_disk(tmp_path: Path) -> None:
    """A block that rotted between two runs is fetched again, and that block alone."""
    first = part(tmp_path)
    put(first, 0, 3 * BLOCK)
    first.close()
    data = bytearray((tmp_path / "x.part").read_bytes())
    data[BLOCK + 7] ^= 1
    (tmp_path / "x.part").write_bytes(data)
    second = part(tmp_path)

    assert [(BLOCK, 2 * BLOCK), (3 * BLOCK, len(DATA))] == second.gaps()
    put(second, 3 * BLOCK, len(DATA))
    put(second, BLOCK, 2 * BLOCK)
    assert second.matches()
    second.close()


def test_a_power_cut(tmp_path: Path) -> None:
    """Claims whose bytes never reached the disk are dropped."""
    first = part(tmp_path)
    put(first, 0, 3 * BLOCK)
    first.close()
    with (tmp_path / "x.part").open("r+b") as file:
        file.truncate(BLOCK + 5)
    second = part(tmp_path)

    assert [(BLOCK, len(DATA))] == second.gaps()
    second.close()


@pytest.mark.parametrize(
    "ledger",
    [
        b"", b"\n\n", b"sha256 other 1 2\n0 00000000\n", b"\xff\xfe",
        b"HEAD0 zzzzzzzz\n", b"HEAD999999999 00000000\n", b"HEAD0 00000000", b"HEAD-1 00000000\n",
        b"HEAD" + b"0" * 100_000,
    ],
)  # fmt: skip
def test_ledgers_that_lie(tmp_path: Path, ledger: bytes) -> None:
    """A ledger of other content, a torn or a made-up one claims nothing."""
    first = part(tmp_path)
    put(first, 0, BLOCK)
    first.close()
    head = (tmp_path / "x.ledger").read_bytes().split(b"\n")[0] + b"\n"
    (tmp_path / "x.ledger").write_bytes(ledger.replace(b"HEAD", head))
    second = part(tmp_path)

    assert [(0, len(DATA))] == second.gaps()
    second.close()


def test_another_content_under_the_same_name(tmp_path: Path) -> None:
    """What was fetched for another hash is of no use."""
    first = part(tmp_path)
    put(first, 0, len(DATA))
    first.close()
    other = part(tmp_path, Item(ITEM.path, ITEM.size, sha256="0" * 64))

    assert 0 == other.kept
    other.close()


def test_wrong_bytes_do_not_match(tmp_path: Path) -> None:
    """A file that is complete and wrong is known to be wrong."""
    one = part(tmp_path, Item(ITEM.path, ITEM.size, sha256="0" * 64))
    put(one, 0, len(DATA))

    assert one.complete
    assert not one.matches()
    one.discard()
    assert [] == list(tmp_path.iterdir())


def test_small_files_hash_as_git_does(tmp_path: Path) -> None:
    """A file that the hub names by its git blob id is proved by that."""
    data = b"{}\n"
    oid = hashlib.sha1(b"blob 3\0" + data).hexdigest()
    one = part(tmp_path, Item("config.json", 3, oid=oid))
    one.write(Span(one, 0, 3), memoryview(data))

    assert one.matches()
    one.discard()


def test_a_link_in_the_way(tmp_path: Path) -> None:
    """A link where a part should be is not followed."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        part(tmp_path)

    assert "precious" == (tmp_path / "victim").read_text()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, BLOCK)), max_size=6), st.randoms())
def test_any_order_of_kills(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[int, int]],
    chance: random.Random,
) -> None:
    """Whatever was written before runs ended, the rest completes it to the right bytes."""
    folder = tmp_path_factory.mktemp("part")
    for block, count in runs:
        one = part(folder)
        start = block * BLOCK
        if any(first <= start < last for first, last in one.gaps()):
            put(one, start, min(start + count, len(DATA), start + BLOCK), 1 << 20)
        one.close()
    last = part(folder)
    gaps = last.gaps()
    chance.shuffle(gaps)
    for start, end in gaps:
        put(last, start, end, 1 << 20)

    assert last.complete
    assert last.matches()
    last.discard()
