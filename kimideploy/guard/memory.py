"""What was thought, to be given back to a client that lost it: bounded, and never to another.

A thought is found by all that was said before it, by the calls it led to, and by whose key asked:
ids like `functions.NAME:0` are the same in every conversation and find nothing by themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

#: bytes an entry takes beside its text: its digest, the string's head and the table's share
_OVERHEAD = 300
#: signs of arguments that are read as JSON; longer ones must come back byte for byte
_LONG = 64 << 10
Message = Mapping[str, Any]


class Memory:
    """At most `size` bytes of thoughts; the ones not asked for longest go first."""

    def __init__(self, size: int) -> None:
        self._most = size
        self._thoughts: OrderedDict[bytes, bytes] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._thoughts)

    def keep(self, place: bytes, thought: str) -> None:
        """Remember *thought* at *place*, also that there was none.

        One that alone is too large is forgotten at once.
        """
        self._drop(place)
        # Why bytes: a text may take four for each sign, and the bound is one of memory.
        kept = thought.encode("utf-8", "surrogatepass")
        cost = len(kept) + _OVERHEAD
        if cost > self._most:
            return
        self._thoughts[place] = kept
        self.size += cost
        while self.size > self._most:
            self._drop(next(iter(self._thoughts)))

    def find(self, place: bytes) -> str | None:
        """Return what was thought at *place*, None if that is not known."""
        thought = self._thoughts.get(place)
        if thought is not None:
            self._thoughts.move_to_end(place)
        return thought.decode("utf-8", "surrogatepass") if thought is not None else None

    def _drop(self, place: bytes) -> None:
        thought = self._thoughts.pop(place, None)
        if thought is not None:
            self.size -= len(thought) + _OVERHEAD


class Trail:
    """What a conversation was up to some message, as a digest that grows with each."""

    def __init__(self, owner: str) -> None:
        self._state = hashlib.blake2b(owner.encode(), digest_size=16)

    def place(self, message: Message) -> bytes:
        """Return where the thought of the assistant's *message* belongs, which comes next."""
        here = self._state.copy()
        calls = message.get("tool_calls")
        # Why not its content beside calls: one sends null there, and another "".
        what: Any = _calls(calls) if calls else _text(message.get("content"))
        here.update(_bytes(["thought", what]))
        return here.digest()

    def add(self, message: Message) -> None:
        """Go on past *message*; its reasoning, which may be lost, is no part of the trail."""
        calls = message.get("tool_calls")
        said = _text(message.get("content"))
        parts = [message.get("role"), said, _calls(calls) if calls else None]
        self._state.update(_bytes(parts))


def _calls(calls: object) -> list[Any]:
    found = []
    for call in calls if isinstance(calls, Sequence) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(call, Mapping) and isinstance(function, Mapping):
            # Why no id: engines make some of their own, and what lies between makes others.
            found.append([function.get("name"), _given(function.get("arguments"))])
    return found


def _given(arguments: object) -> object:
    """Arguments as what they mean: a framework may write the same JSON with other blanks."""
    if not isinstance(arguments, str) or len(arguments) > _LONG:
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _text(content: object) -> object:
    """Content without the forms it may take."""
    if content is None:
        return ""
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\0"
