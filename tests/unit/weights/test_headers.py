"""Headers of both kinds: what they say is read, and never believed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.errors import WeightsError
from kimideploy.planning.tensors import Tensor
from kimideploy.weights.headers import gguf, safetensors


def part(data: bytes, start: int, size: int) -> bytes:
    """Read from bytes as from a file."""
    return data[start : start + size]


def safe(data: bytes) -> tuple[Tensor, ...]:
    """Return the tensors of a safetensors file."""
    return safetensors("a.safetensors", len(data), partial(part, data))


def ggml(data: bytes) -> tuple[Tensor, ...]:
    """Return the tensors of a GGUF file."""
    return gguf("a.gguf", len(data), partial(part, data))


def file(header: object, room: int) -> bytes:
    """Return a safetensors file of *header* with *room* bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(room)


def entry(begin: int, end: int, shape: tuple[int, ...], dtype: str = "BF16") -> dict[str, object]:
    """Return a tensor as a header has it."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_with_bytes() -> None:
    """Names, types, shapes and bytes are those of the header; its metadata is no tensor."""
    header = {"__metadata__": {"a": "b"}, "x": entry(0, 8, (2, 2)), "y": entry(8, 10, (4,), "F4")}

    assert safe(file(header, 10)) == (
        Tensor("x", "BF16", (2, 2), 8, "a.safetensors"),
        Tensor("y", "F4", (4,), 2, "a.safetensors"),
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it has 0 bytes"),
        (b"abc", "it has 3 bytes"),
        (struct.pack("<Q", 1 << 60) + b"{}", "a header of 1,152,921,504,606,846,976 bytes"),
        (struct.pack("<Q", 1) + b"{}", "a header of 1 bytes"),
        (file(b"{", 0), "a header of 1 bytes"),
        (file(b'{"a": ', 0), "no safetensors file"),
        (file(b"[]", 0), "no safetensors file"),
        (file(b"\xff\xff", 0), "no safetensors file"),
        (file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0), "no safetensors file"),
        (file({"x": entry(0, 8, (2, 2))}, 7), "the file has room for 7"),
        (file({"x": entry(0, 8, (2, 2))}, 9), "the file has room for 9"),
        (file({"x": entry(0, 8, (2, 2)), "y": entry(6, 10, (2,))}, 10), "overlap or leave a gap"),
        (file({"x": entry(2, 10, (2, 2))}, 10), "overlap or leave a gap"),
        (file({"x": entry(0, -8, (2, 2))}, 0), "overlap or leave a gap"),
        (file({"x": entry(0, 8, (2, 3))}, 8), r"'x' is BF16 \[2, 3\] in 8 bytes"),
        (file({"x": entry(0, 8, (-2, -2))}, 8), "no possible shape"),
        (file({"x": {"dtype": "BF16"}}, 0), "no safetensors file"),
        (file({"x": entry(0, 8, (1 << 70,))}, 8), "in 8 bytes"),
    ],
)
def test_headers_that_lie(data: bytes, said: str) -> None:
    """Lengths, offsets and shapes that can't be are refused with the file and the tensor."""
    with pytest.raises(WeightsError, match=said) as refused:
        safe(data)
    assert "a.safetensors" in refused.value.message


def text(word: bytes) -> bytes:
    """Return a string of GGUF."""
    return struct.pack("<Q", len(word)) + word


def model(
    *tensors: tuple[bytes, tuple[int, ...], int, int],
    room: int = 0,
    pairs: bytes = b"",
    count: int = 0,
) -> bytes:
    """Return a GGUF file of (name, dimensions, type, offset), fastest dimension first."""
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs
    for name, shape, kind, offset in tensors:
        data += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return data + bytes(-len(data) % 32 + room)


PAIRS = (
    text(b"general.architecture") + struct.pack("<I", 8) + text(b"deepseek2")
    + text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    + text(b"tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12)
    + text(b"deepseek2.block_count") + struct.pack("<II", 4, 61)
)  # fmt: skip


def test_quantised_tensors() -> None:
    """Bytes are whole blocks of the type, and a stack of experts comes first in its shape."""
    data = model(
        (b"blk.1.ffn_gate_exps.weight", (256, 2, 3), 12, 0),
        (b"output_norm.weight", (8,), 0, 864),
        room=896,
        pairs=PAIRS,
        count=4,
    )

    assert ggml(data) == (
        Tensor("blk.1.ffn_gate_exps.weight", "Q4_K", (3, 2, 256), 6 * 144, "a.gguf"),
        Tensor("output_norm.weight", "F32", (8,), 32, "a.gguf"),
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it has 0 bytes"),
        (b"GGUF" + bytes(20), "version 2 or 3"),
        (b"XXXX" + struct.pack("<IQQ", 3, 0, 0), "version 2 or 3"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "pairs"),
        (b"GGUF" + struct.pack("<IQQ", 3, 5, 0), "its header has no end"),
        (model(pairs=text(b"k") + struct.pack("<I", 77), count=1), "a value of type 77"),
        (model(pairs=text(b"k") + struct.pack("<IIQ", 9, 9, 1), count=1), "an array of 1"),
        (model(pairs=text(b"k") + struct.pack("<IIQ", 9, 0, 1 << 40), count=1), "an array of"),
        (model((b"x", (10,), 12, 0), room=144), "not whole blocks of Q4_K"),
        (model((b"x", (32,), 99, 0), room=144), "type 99"),
        (model((b"x", (1, 1, 1, 1, 1), 0, 0), room=144), "5 dimensions"),
        (model((b"x", (32,), 0, 0), room=64), "outside the file"),
        (model((b"x", (8,), 0, 0), (b"y", (8,), 0, 16), room=64), "over another"),
        (model((b"\xff", (8,), 0, 0), room=64), "not UTF-8"),
        (
            model(pairs=text(b"general.alignment") + struct.pack("<II", 4, 0), count=1),
            "an alignment of 0",
        ),
    ],
)
def test_models_that_lie(data: bytes, said: str) -> None:
    """Counts, types, sizes and offsets that can't be are refused with the file."""
    with pytest.raises(WeightsError, match=said) as refused:
        ggml(data)
    assert "a.gguf" in refused.value.message


GOOD = (
    file({"x": entry(0, 8, (2, 2)), "y": entry(8, 16, (4,))}, 16),
    model((b"x", (8,), 0, 0), (b"y", (8,), 0, 32), room=64, pairs=PAIRS, count=4),
)


def refused(parse: Callable[[bytes], object], data: bytes) -> bool:
    """Whether *data* is refused, in words; any other error fails the test."""
    try:
        parse(data)
    except WeightsError as error:
        return bool(error.message)
    return False


@given(
    which=st.sampled_from(GOOD),
    at=st.integers(0, 400),
    byte=st.integers(0, 255),
    cut=st.integers(0, 400),
)
def test_a_broken_byte_is_no_crash(which: bytes, at: int, byte: int, cut: int) -> None:
    """A changed byte is read or refused, and what is cut short is always refused."""
    broken = bytearray(which[: max(0, len(which) - cut)])
    if at < len(broken):
        broken[at] = byte
    parse = safe if which is GOOD[0] else ggml

    assert refused(parse, bytes(broken)) or len(broken) == len(which) or parse is ggml


@given(data=st.binary(max_size=300))
def test_noise_is_no_crash(data: bytes) -> None:
    """Bytes without sense are refused, also behind the right first ones."""
    assert refused(safe, b"\xff" * 8 + data)
    assert refused(ggml, b"GGUF\x09\x00\x00\x00" + data)
    refused(ggml, b"GGUF\x03\x00\x00\x00" + data)
