"""The headers of safetensors and GGUF files: every tensor's name, type, shape and bytes.

What they say is not believed: lengths have limits, and tensors must lie inside their file, beside
each other. Only headers are read, of a file of ten gigabytes some hundred kilobytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from math import prod

import msgspec

from kimideploy.errors import WeightsError
from kimideploy.planning.tensors import Tensor

#: reads *size* bytes from *start* of one file
Read = Callable[[int, int], bytes]

#: the format's own limit, safetensors/src/tensor.rs: MAX_HEADER_SIZE
_MOST_HEADER = 100_000_000
#: bytes of the first read; the header of a shard with three thousand tensors takes half of it
_FIRST = 1 << 20
#: bits of a value, safetensors/src/tensor.rs: Dtype
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_POINTER = b"version https://git-lfs"
_MOST_DIMENSIONS = 16


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def safetensors(name: str, size: int, read: Read) -> tuple[Tensor, ...]:
    """Return the tensors of the safetensors file *name*, which takes *size* bytes."""
    start = read(0, min(size, _FIRST))
    if start.startswith(_POINTER):
        raise WeightsError(f"{name} is a Git LFS pointer and not the file", hint="git lfs pull")
    if size < 8:  # noqa: PLR2004
        raise WeightsError(f"{name} is no safetensors file: it has {size} bytes")
    (length,) = struct.unpack("<Q", start[:8])
    if not len("{}") <= length <= min(_MOST_HEADER, size - 8):
        raise WeightsError(f"{name} is no safetensors file: a header of {length:,} bytes")
    header = start[8 : 8 + length]
    if len(header) < length:
        header += read(8 + len(header), length - len(header))
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {key: msgspec.json.decode(value, type=_Entry) for key, value in raw.items()}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"{name} is no safetensors file: {error}") from error
    _beside(name, [entry.data_offsets for entry in entries.values()], size - 8 - length)
    return tuple(_tensor(name, key, entry) for key, entry in entries.items())


def _tensor(file: str, name: str, entry: _Entry) -> Tensor:
    begin, end = entry.data_offsets
    if len(entry.shape) > _MOST_DIMENSIONS or any(n < 0 for n in entry.shape):
        raise WeightsError(f"{file}: {_short(name)} has no possible shape")
    bits = _BITS.get(entry.dtype)
    if bits is not None and -(-prod(entry.shape) * bits // 8) != end - begin:
        raise WeightsError(
            f"{file}: {_short(name)} is {entry.dtype} {list(entry.shape)} in {end - begin:,} bytes"
        )
    return Tensor(name, entry.dtype, entry.shape, end - begin, file)


def _beside(file: str, spans: list[tuple[int, int]], room: int) -> None:
    """Raise WeightsError unless *spans* fill *room* without a gap or an overlap."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at or end < begin:
            raise WeightsError(f"{file}: its tensors overlap or leave a gap at byte {at:,}")
        at = end
    if at != room:
        raise WeightsError(f"{file}: its tensors take {at:,} bytes, the file has room for {room:,}")


def _short(name: str) -> str:
    return repr(name[:80])


#: gguf-py/gguf/constants.py: type → name, values of a block, bytes of a block
_GGML = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
#: the same file: bytes of a value of metadata; 8 is a string, 9 an array
_VALUES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_U32 = 4
#: a model of the family has some thousand tensors, and as many words of metadata as its tokenizer
_MOST_TENSORS, _MOST_PAIRS, _MOST_ITEMS = 1_000_000, 100_000, 4_000_000
_MOST_NAME = 1 << 16
#: ggml.h: GGML_MAX_DIMS
_GGML_DIMENSIONS = 4
_ALIGNMENT = 32


class _Stream:
    """A file read forwards, in pieces of a megabyte, up to the most that a header may take."""

    def __init__(self, name: str, size: int, read: Read) -> None:
        self.name, self.size, self.at = name, size, 0
        self._read, self._buffer, self._start = read, b"", 0

    def take(self, count: int) -> bytes:
        if self.at + count > min(self.size, _MOST_HEADER):
            raise WeightsError(f"{self.name} is no GGUF file: its header has no end")
        if not self._start <= self.at or self.at + count > self._start + len(self._buffer):
            self._start = self.at
            self._buffer = self._read(self.at, min(max(count, _FIRST), self.size - self.at))
        begin = self.at - self._start
        self.at += count
        return self._buffer[begin : begin + count]

    def number(self, form: str) -> int:
        (value,) = struct.unpack(f"<{form}", self.take(struct.calcsize(form)))
        return int(value)

    def text(self, most: int) -> bytes:
        length = self.number("Q")
        if length > most:
            raise WeightsError(f"{self.name} is no GGUF file: a word of {length:,} bytes")
        return self.take(length)


def gguf(name: str, size: int, read: Read) -> tuple[Tensor, ...]:
    """Return the tensors of the GGUF file *name*, which takes *size* bytes.

    Shapes are as a matrix library writes them, slowest dimension first.
    """
    stream = _Stream(name, size, read)
    if size < 24:  # noqa: PLR2004
        raise WeightsError(f"{name} is no GGUF file: it has {size} bytes")
    magic = stream.take(4)
    if magic == _POINTER[:4]:
        raise WeightsError(f"{name} is a Git LFS pointer and not the file", hint="git lfs pull")
    version = stream.number("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise WeightsError(f"{name} is no GGUF file of version 2 or 3")
    tensors, pairs = stream.number("Q"), stream.number("Q")
    if tensors > _MOST_TENSORS or pairs > _MOST_PAIRS:
        raise WeightsError(f"{name} is no GGUF file: {tensors:,} tensors, {pairs:,} pairs")
    alignment = _metadata(stream, pairs)
    found = list(_infos(stream, tensors))
    start = -(-stream.at // alignment) * alignment
    at = 0
    for tensor, offset in sorted(found, key=lambda pair: pair[1]):
        if offset < at or start + offset + tensor.bytes > size:
            raise WeightsError(
                f"{name}: {_short(tensor.name)} lies outside the file or over another"
            )
        at = offset + tensor.bytes
    return tuple(tensor for tensor, _ in found)


def _metadata(stream: _Stream, pairs: int) -> int:
    """Read past the metadata, and return the alignment that it states."""
    alignment = _ALIGNMENT
    for _ in range(pairs):
        key, kind = stream.text(_MOST_NAME), stream.number("I")
        if key == b"general.alignment" and kind == _U32:
            alignment = stream.number("I")
            if not 1 <= alignment <= 1 << 20:
                raise WeightsError(f"{stream.name} is no GGUF file: an alignment of {alignment}")
        else:
            _skip(stream, kind)
    return alignment


def _skip(stream: _Stream, kind: int) -> None:
    if kind == _STRING:
        stream.text(_MOST_HEADER)
    elif kind == _ARRAY:
        inner, count = stream.number("I"), stream.number("Q")
        if count > _MOST_ITEMS or inner == _ARRAY:
            raise WeightsError(f"{stream.name} is no GGUF file: an array of {count:,}")
        if inner in _VALUES:
            stream.take(_VALUES[inner] * count)
        else:
            for _ in range(count):
                _skip(stream, inner)
    elif kind in _VALUES:
        stream.take(_VALUES[kind])
    else:
        raise WeightsError(f"{stream.name} is no GGUF file: a value of type {kind}")


def _infos(stream: _Stream, tensors: int) -> Iterator[tuple[Tensor, int]]:
    for _ in range(tensors):
        try:
            word = stream.text(_MOST_NAME).decode()
        except UnicodeDecodeError as error:
            raise WeightsError(f"{stream.name} is no GGUF file: a name is not UTF-8") from error
        dimensions = stream.number("I")
        if dimensions > _GGML_DIMENSIONS:
            raise WeightsError(f"{stream.name}: {_short(word)} has {dimensions} dimensions")
        shape = tuple(stream.number("Q") for _ in range(dimensions))
        kind, offset = stream.number("I"), stream.number("Q")
        if kind not in _GGML:
            raise WeightsError(f"{stream.name}: {_short(word)} is of type {kind}, which is unknown")
        dtype, block, bytes_ = _GGML[kind]
        values = prod(shape)
        if values % block:
            raise WeightsError(f"{stream.name}: {_short(word)} is not whole blocks of {dtype}")
        yield (
            Tensor(word, dtype, tuple(reversed(shape)), values // block * bytes_, stream.name),
            offset,
        )
