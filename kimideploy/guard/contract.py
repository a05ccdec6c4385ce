"""The contract of a chat request, restored: fields, ids, thoughts, sampling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kimideploy.conformance.promise import FIELDS, Field
from kimideploy.guard.memory import Memory, Trail

#: what to do with a tool call whose reasoning is missing: refuse it; give the reasoning back, or
#: refuse where it is not known; or let it pass
Missing = Literal["refuse", "repair", "pass"]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the guard keeps. `sampling` is set where a request says nothing."""

    #: the field the engine reads and writes
    field: Field
    #: the field or fields that clients are sent
    sends: tuple[Field, ...] = FIELDS
    missing: Missing = "refuse"
    #: e.g. functions.{name}:{index}
    tool_id: str = "functions.{name}:{index}"
    sampling: tuple[tuple[str, float], ...] = ()
    thinks: bool = True
    #: a request may switch thinking off
    switchable: bool = False


@dataclass(slots=True)
class Outcome:
    """A request as the engine gets it, and what was done to it. `refusal` is why it does not."""

    body: Body
    #: where what the engine thinks next will belong
    trail: Trail
    changed: bool = False
    refusal: str | None = None
    renamed: int = 0
    mapped: int = 0
    repaired: int = 0
    #: tool calls whose reasoning is missing and stays so
    lost: int = 0


def prepared(body: Body, contract: Contract, memory: Memory, owner: str) -> Outcome:
    """Return the chat request *body* as the engine should get it.

    Messages that are no messages pass: the engine's own refusal says best what is wrong with them.
    """
    found = Outcome(body, Trail(owner))
    defaults = {name: value for name, value in contract.sampling if body.get(name) is None}
    if defaults:
        found.body, found.changed = {**body, **defaults}, True
    messages = body.get("messages")
    if not isinstance(messages, list):
        return found
    if contract.switchable and _switched_off(body):
        contract = replace(contract, thinks=False)
    names = _Names(contract.tool_id, messages)
    made: list[Any] = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            return found
        one = names.renamed(message)
        if message.get("role") == "assistant":
            one = _thoughtful(one, index, contract, memory, found)
            if found.refusal is not None:
                return found
        if contract.missing == "repair":
            found.trail.add(one)
        made.append(one)
    found.renamed = names.count
    if found.changed or found.renamed or found.mapped or found.repaired:
        found.body = {**found.body, "messages": made}
        found.changed = True
    return found


def _switched_off(body: Mapping[str, Any]) -> bool:
    """Whether the request wants no thoughts, in the words of engines or of Moonshot's API."""
    wishes, thinking = body.get("chat_template_kwargs"), body.get("thinking")
    if isinstance(wishes, Mapping) and wishes.get("thinking") is False:
        return True
    return isinstance(thinking, Mapping) and thinking.get("type") == "disabled"


def _thoughtful(
    message: Mapping[str, Any], index: int, contract: Contract, memory: Memory, found: Outcome
) -> Mapping[str, Any]:
    """The assistant's message with its reasoning in the engine's field."""
    given = next((message[f] for f in (contract.field, *FIELDS) if _is_thought(message, f)), None)
    if given is not None:
        if contract.missing == "repair":
            memory.keep(found.trail.place(message), given)
        if message.get(contract.field) == given and not _others(message, contract.field):
            return message
        found.mapped += 1
        return _carrying(message, contract.field, given)
    if not contract.thinks:
        return message
    known = memory.find(found.trail.place(message)) if contract.missing == "repair" else None
    if known:
        found.repaired += 1
        return _carrying(message, contract.field, known)
    if known is not None or not message.get("tool_calls"):
        return message
    found.lost += 1
    if contract.missing != "pass":
        # Why these words: Moonshot's own API refuses with them, and clients know them.
        found.refusal = (
            "thinking is enabled but reasoning_content is missing in assistant tool call message"
            f" at index {index}"
        )
    return message


def _is_thought(message: Mapping[str, Any], name: str) -> bool:
    value = message.get(name)
    return isinstance(value, str) and bool(value.strip())


def _others(message: Mapping[str, Any], kept: str) -> bool:
    return any(name in message for name in FIELDS if name != kept)


def _carrying(message: Mapping[str, Any], name: str, thought: str) -> dict[str, Any]:
    bare = {key: value for key, value in message.items() if key not in FIELDS}
    return {**bare, name: thought}


class _Names:
    """Renames ids that are not the model's own, the same everywhere in a conversation.

    No id is given twice: the model's own in *messages* keep their numbers.
    """

    def __init__(self, shape: str, messages: list[Any]) -> None:
        self._shape = shape
        whole = re.escape(shape).replace(re.escape("{name}"), r"(?P<name>.+)")
        self._pattern = re.compile(whole.replace(re.escape("{index}"), r"\d+"), re.DOTALL)
        #: the client's id → ours, in the order of the calls that have it
        self._known: dict[str, list[str]] = {}
        self._last: dict[str, str] = {}
        self._index = 0
        self.count = 0
        self._taken = {
            call["id"]
            for message in messages
            if isinstance(message, Mapping) and isinstance(message.get("tool_calls"), list)
            for call in message["tool_calls"]
            if isinstance(call, Mapping) and isinstance(call.get("id"), str) and self._own(call)
        }

    def renamed(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return *message* with the ids the model was trained on; counts what it changed."""
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            new = [self._call(call) for call in calls]
            return {**message, "tool_calls": new} if new != calls else message
        given = message.get("tool_call_id")
        waiting = self._known.get(given) if isinstance(given, str) else None
        if waiting is None:
            return message
        # Why in turn: the same foreign id may stand for several calls, answered in their order.
        own = waiting.pop(0) if waiting else self._last[str(given)]
        self._last[str(given)] = own
        return {**message, "tool_call_id": own} if own != given else message

    def _own(self, call: Mapping[str, Any]) -> bool:
        """Whether the call's id is one the model was trained on, for the tool it calls."""
        function = call.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        given = call.get("id")
        found = self._pattern.fullmatch(given) if isinstance(given, str) else None
        return found is not None and found["name"] == name

    def _call(self, call: Any) -> Any:
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        given = call.get("id") if isinstance(call, Mapping) else None
        if not isinstance(name, str):
            return call
        index, self._index = self._index, self._index + 1
        own = str(given)
        foreign = not self._own(call)
        while foreign:
            own = self._shape.replace("{name}", name).replace("{index}", str(index))
            if own not in self._taken:
                self._taken.add(own)
                break
            index += 1
        if isinstance(given, str):
            self._known.setdefault(given, []).append(own)
        self.count += foreign
        return {**call, "id": own} if foreign else call


def shown(message: Body, contract: Contract) -> bool:
    """Put the reasoning of an answer's *message* or delta into the fields clients get.

    Return whether anything changed.
    """
    if contract.field not in message or contract.sends == (contract.field,):
        return False
    thought = message[contract.field]
    if thought is None:
        return False
    if contract.field not in contract.sends:
        del message[contract.field]
    for name in contract.sends:
        message[name] = thought
    return True
