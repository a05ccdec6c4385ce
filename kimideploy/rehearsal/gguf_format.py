"""GGUF as a format: keys and values, tensors, and how they lie in a file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

_ALIGNMENT = 32
_CODES = {"u32": 4, "i32": 5, "f32": 6, "bool": 7, "string": 8, "array": 9}
Kind = Literal["u32", "i32", "f32", "bool", "string"]


class Stored(Protocol):
    """A tensor as a file holds it: its shape, the number of its type, and its bytes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, the slowest first."""

    @property
    def code(self) -> int:
        """The file's number for the type."""

    def data(self) -> bytes:
        """Return the bytes."""


def string(text: str) -> bytes:
    """Return a string as GGUF writes it."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: Kind, value: Any) -> bytes:
    """Return one value as GGUF writes it."""
    match kind:
        case "string":
            return string(value)
        case "u32":
            return struct.pack("<I", value)
        case "i32":
            return struct.pack("<i", value)
        case "f32":
            return struct.pack("<f", value)
        case "bool":
            return struct.pack("<?", value)


def entry(key: str, kind: Kind, value: Any) -> bytes:
    """Return one key and its value; a list becomes an array."""
    if isinstance(value, list):
        head = struct.pack("<IIQ", _CODES["array"], _CODES[kind], len(value))
        return string(key) + head + b"".join(scalar(kind, one) for one in value)
    return string(key) + struct.pack("<I", _CODES[kind]) + scalar(kind, value)


def whole(weights: Mapping[str, Stored], about: Sequence[bytes]) -> bytes:
    """Return the whole file."""
    infos: list[bytes] = []
    blobs: list[bytes] = []
    end = 0
    for name, tensor in weights.items():
        shape = tuple(reversed(tensor.shape))
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos.append(string(name) + sizes + struct.pack("<IQ", tensor.code, end))
        blob = padded(tensor.data())
        blobs.append(blob)
        end += len(blob)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(about))
    return padded(b"".join([head, *about, *infos])) + b"".join(blobs)


def padded(data: bytes) -> bytes:
    """Return *data* filled up to the alignment."""
    return data + b"\0" * (-len(data) % _ALIGNMENT)
