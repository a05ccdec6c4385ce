"""The requests: what is asked of an endpoint, each under a name. Pure.

No request needs the answer to another: histories are our own. So any can be sent alone, recorded,
and answered again from a record.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kimideploy.conformance.promise import CROWDS, FIELDS, Field, Promise, Words

CHAT = "/v1/chat/completions"
Messages = list[dict[str, Any]]

#: "What is 17 times 23?"
PRODUCT = "391"
#: what a request that is to be cut off may take
FEW = 8
#: what the counting is to stop before
STOP = "5"
#: how often the same open question is asked
DRAWS = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `together` names the crowd it is sent with, at once; None: alone."""

    name: str
    body: Mapping[str, Any] | None = None
    path: str = CHAT
    key: Literal["own", "none", "wrong"] = "own"
    together: str | None = None

    @property
    def streamed(self) -> bool:
        """Whether the answer is asked for as a stream."""
        return self.body is not None and self.body.get("stream") is True


# --- tools ---------------------------------------------------------------------------------


def _tool(name: str, about: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


_TEXT = {"type": "string"}
PYTHON = _tool("run_python", "Run a Python program.", {"code": _TEXT}, ["code"])
WEATHER = _tool("get_weather", "Tell the weather of a city.", {"city": _TEXT}, ["city"])
LOOKUP = _tool("look-up", "Look a word up.", {"word": _TEXT}, ["word"])
CLOCK = _tool("clock", "Tell the time.", {}, [])
BOOKING = _tool(
    "book_room",
    "Book a room.",
    {
        "nights": {"type": "integer", "minimum": 1},
        "bed": {"type": "string", "enum": ["single", "double"]},
        "guests": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "paid": {"type": "boolean"},
    },
    ["nights", "bed", "guests", "paid"],
)
BOOKING["function"]["parameters"]["additionalProperties"] = False


def called(name: str) -> dict[str, Any]:
    """Return the tool_choice that names a tool."""
    return {"type": "function", "function": {"name": name}}


# --- conversations -------------------------------------------------------------------------

_QUESTION = "What is 17 times 23? Answer with the number alone."
_CODE = (
    "Conversation {number}. Think of a code word, but do not write it in your answer yet."
    " Look at the clock. When it has told the time, answer with the code word you thought of,"
    " alone."
)
_TURN = (
    "Conversation {number}. Think of a code word, but do not write it in your answer."
    " Say only: ready."
)
_RECALL = "Which code word did you think of? Answer with it alone."


def user(text: str) -> Messages:
    """Return a conversation of one question."""
    return [{"role": "user", "content": text}]


def picked(secret: str) -> str:
    """Return the thought in which the code word is told, the only place it is told in."""
    return f"I need a code word. I take {secret}. Nobody sees it here."


def loop(promise: Promise, number: str, thought: str, fields: tuple[Field, ...]) -> Messages:
    """Return a tool loop whose first answer carries *thought* in *fields*."""
    call_id = promise.call_id("clock", 0)
    call = {"id": call_id, "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    return [
        *user(_CODE.format(number=number)),
        answer | dict.fromkeys(fields, thought),
        {"role": "tool", "tool_call_id": call_id, "content": "12:00"},
    ]


def turns(number: str, thought: str, fields: tuple[Field, ...]) -> Messages:
    """Return two turns, the first with *thought* in *fields*."""
    answer = {"role": "assistant", "content": "ready"} | dict.fromkeys(fields, thought)
    return [*user(_TURN.format(number=number)), answer, *user(_RECALL)]


def image() -> Messages:
    """Return a question about a picture of plain red."""
    url = "data:image/png;base64," + base64.b64encode(_png(64, (255, 0, 0))).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour is this picture? Answer with one word."},
    ]
    return [{"role": "user", "content": parts}]


def _png(side: int, colour: tuple[int, int, int]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * side) * side
    packed = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + packed


# --- all of them ---------------------------------------------------------------------------


def asks(promise: Promise, words: Words) -> dict[str, Ask]:
    """Return every request by its name."""
    return {ask.name: ask for ask in _asks(promise, words)}


def _asks(promise: Promise, words: Words) -> Iterator[Ask]:
    yield Ask("health", path="/health")
    yield Ask("models", path="/v1/models")

    def chat(name: str, messages: Messages, **more: Any) -> Ask:
        body = {"model": promise.model, "messages": messages, "max_tokens": promise.max_tokens}
        return Ask(name, body | more)

    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    yield chat("question streamed", user(_QUESTION), **streamed)
    yield chat("question", user(_QUESTION))
    yield from _tools(chat, streamed)
    yield from _memory(chat, promise, words)
    yield chat("cut off", user(_QUESTION), max_tokens=FEW)
    yield chat("stop", user("Count from 1 to 9 in digits, separated by blanks."), stop=[STOP])
    yield chat("image", image())
    if promise.context is not None:
        yield chat("too long", user("a b c d " * (promise.context // 2 + 1)), max_tokens=1)
    for number in range(DRAWS):
        yield chat(f"draw {number}", user("Name an animal, any. Answer with one word."))
    yield Ask("no key", _small(promise), key="none")
    yield Ask("wrong key", _small(promise), key="wrong")
    echoes = iter(words.echoes)
    for size in CROWDS:
        for number in range(size):
            ask = chat(f"echo {size}.{number}", user(f"Repeat this code word: {next(echoes, '')}"))
            yield Ask(ask.name, ask.body, together=f"crowd of {size}")


def _tools(chat: Any, streamed: Mapping[str, Any]) -> Iterator[Ask]:
    task = user(
        "Let run_python compute the sum of the first 1000 prime numbers;"
        " do not work it out yourself."
    )
    yield chat("call", task, tools=[PYTHON], tool_choice="auto")
    yield chat("call streamed", task, tools=[PYTHON], tool_choice="auto", **streamed)
    # Why one token: only what the prompt weighs is looked at.
    yield chat("offered", user(_QUESTION), tools=[PYTHON], tool_choice="auto", max_tokens=1)
    yield chat("none", user(f"Do not use a tool. {_QUESTION}"), tools=[PYTHON], tool_choice="none")
    yield chat("required", user("Say hello."), tools=[PYTHON], tool_choice="required")
    yield chat(
        "named", user("Say hello."), tools=[PYTHON, WEATHER], tool_choice=called("get_weather")
    )
    yield chat("dashed", user("Look up the word otter."), tools=[LOOKUP], tool_choice="auto")
    both = user("What is the weather in Oslo and in Bergen? Ask for both at once.")
    yield chat("parallel", both, tools=[WEATHER], tool_choice="auto")
    yield chat("parallel streamed", both, tools=[WEATHER], tool_choice="auto", **streamed)
    yield chat(
        "schema",
        user("Book a double room for two nights for Ada and Alan; it is paid."),
        tools=[BOOKING],
        tool_choice="auto",
    )


def _memory(chat: Any, promise: Promise, words: Words) -> Iterator[Ask]:
    thought, (here, lost) = picked(words.secret), words.numbers
    for field in FIELDS:
        yield chat(f"loop with {field}", loop(promise, here, thought, (field,)), tools=[CLOCK])
        yield chat(f"turns with {field}", turns(here, thought, (field,)))
    yield chat("loop without", loop(promise, lost, thought, ()), tools=[CLOCK])
    yield chat("turns without", turns(lost, thought, ()))


def _small(promise: Promise) -> dict[str, Any]:
    return {"model": promise.model, "messages": user("1"), "max_tokens": 1}
