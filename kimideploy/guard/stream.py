"""A streamed answer on its way: each event goes on as soon as it is whole, most of them untouched.

Only events that have to be changed or remembered are read; what was thought is remembered as soon
as the answer is whole.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kimideploy.guard.contract import Contract, shown
from kimideploy.guard.memory import Memory, Trail

#: bytes of an event that never ends; then it goes on as it is
_LONGEST = 8 << 20
_DATA = b"data:"


class Events:
    """Takes the pieces of a stream and gives back what is to be sent on.

    `memory` None: nothing is remembered.
    """

    def __init__(self, contract: Contract, memory: Memory | None, trail: Trail) -> None:
        self._contract = contract
        self._memory, self._trail = memory, trail
        self._maps = contract.sends != (contract.field,)
        self._marks = [f'"{contract.field}"'.encode()] if self._maps else []
        if memory is not None:
            self._marks = [f'"{contract.field}"'.encode(), b'"delta"']
        self._rest = b""
        self._thoughts: dict[int, list[str]] = {}
        self._texts: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, dict[str, Any]]] = {}

    def take(self, piece: bytes) -> bytes:
        """Return what of the stream is complete now."""
        if not self._marks:
            return piece
        data = self._rest + piece
        # Why the longest of both: a stream may end its lines in either way.
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3)
        if end < 3:  # noqa: PLR2004  neither was found
            end = len(data) if len(data) > _LONGEST else 0
        whole, self._rest = data[:end], data[end:]
        if not any(mark in whole for mark in self._marks):
            return whole
        return b"".join(map(self._line, whole.splitlines(keepends=True)))

    def end(self) -> bytes:
        """Return what is left."""
        rest, self._rest = self._rest, b""
        return rest

    def _keep(self, index: int) -> None:
        """Remember what was thought, as soon as the answer is whole: who asked may leave then."""
        if self._memory is None:
            return
        calls = [call for _, call in sorted(self._calls.get(index, {}).items())]
        message: dict[str, Any] = {"content": "".join(self._texts.get(index, []))}
        message |= {"tool_calls": calls} if calls else {}
        self._memory.keep(self._trail.place(message), "".join(self._thoughts.get(index, [])))

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(_DATA) or not any(mark in line for mark in self._marks):
            return line
        try:
            event = msgspec.json.decode(line[len(_DATA) :])
        except (msgspec.DecodeError, RecursionError):
            return line
        choices = event.get("choices") if isinstance(event, dict) else None
        changed = False
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if not isinstance(delta, dict):
                continue
            if self._memory is not None:
                self._remember(choice.get("index"), delta)
                if choice.get("finish_reason") is not None:
                    number = choice.get("index")
                    self._keep(number if isinstance(number, int) else 0)
            changed = (self._maps and shown(delta, self._contract)) or changed
        if not changed:
            return line
        ending = line[len(line.rstrip(b"\r\n")) :]
        return b"data: " + msgspec.json.encode(event) + ending

    def _remember(self, index: Any, delta: dict[str, Any]) -> None:
        number = index if isinstance(index, int) else 0
        thought, text = delta.get(self._contract.field), delta.get("content")
        if isinstance(thought, str):
            self._thoughts.setdefault(number, []).append(thought)
        if isinstance(text, str):
            self._texts.setdefault(number, []).append(text)
        parts = delta.get("tool_calls")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("index"), int):
                _add(part, self._calls.setdefault(number, {}))


def _add(part: dict[str, Any], calls: dict[int, dict[str, Any]]) -> None:
    call = calls.setdefault(part["index"], {"id": None, "function": {"name": "", "arguments": ""}})
    function = part.get("function")
    if isinstance(part.get("id"), str):
        call["id"] = part["id"]
    if isinstance(function, dict):
        for key in ("name", "arguments"):
            if isinstance(function.get(key), str):
                call["function"][key] += function[key]
