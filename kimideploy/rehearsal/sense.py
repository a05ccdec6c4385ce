"""The little sense the stand-in has: enough to keep every promise that conformance checks.

It multiplies, counts, repeats, recalls a code word from the reasoning in its history, names an
animal, and sees the colour of a plain picture. All else it answers in the same words.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]

_PRODUCT = re.compile(r"What is (\d{1,9}) times (\d{1,9})\b")
_REPEAT = re.compile(r"Repeat this code word: ([\w-]{1,80})")
_COUNT = re.compile(r"Count from (\d{1,3}) to (\d{1,3})\b")
_RECALL = re.compile(r"code word (?:you thought of|did you think of)")
_WORD = re.compile(r"\b[a-z]+-[a-z]+\b")
_ANIMALS = ("otter", "heron", "lynx", "toad", "crane")
_COLOURS: dict[tuple[int, ...], str] = {
    (255, 0, 0): "red",
    (0, 255, 0): "green",
    (0, 0, 255): "blue",
}
_QUOTED = 200
#: what an inflated picture may take
_PIXELS = 1 << 22


@dataclass(frozen=True, slots=True)
class Said:
    """A thought and the words that follow it."""

    reasoning: str
    content: str


def sense(messages: Sequence[Message], turn: int) -> Said:  # noqa: PLR0911  one an ability
    """Return the answer to the last of *messages*; `turn` counts answers, so that they can vary."""
    last = messages[-1]
    text = " ".join(text_of(one.get("content")) for one in messages if one.get("role") == "user")
    if _RECALL.search(text) and (len(messages) > 1 or last.get("role") == "tool"):
        return _recalled(messages)
    if last.get("role") == "tool":
        said = text_of(last.get("content"))[:_QUOTED]
        return Said(
            "The tool has answered. I tell the user what it said.", f"The tool says: {said}"
        )
    text = text_of(last.get("content"))
    if found := _PRODUCT.search(text):
        product = int(found[1]) * int(found[2])
        return Said(
            f"I am to multiply {found[1]} and {found[2]}. That makes {product}.", str(product)
        )
    if found := _REPEAT.search(text):
        return Said("I repeat it.", found[1])
    if found := _COUNT.search(text):
        return Said("I count.", " ".join(map(str, range(int(found[1]), int(found[2]) + 1))))
    if "Name an animal" in text:
        return Said("Any will do.", _ANIMALS[turn % len(_ANIMALS)])
    if (colour := _seen(last.get("content"))) is not None:
        return Said("I look at the picture.", colour)
    return Said(
        "This is a rehearsal: no model is loaded. I still think before I answer.",
        "I am the stand-in for a Kimi model. Your endpoint works; the answers come later.",
    )


def text_of(content: Any) -> str:
    """Return the text of a content, in whichever form it came."""
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return " ".join(str(part) for part in parts)
    return str(content or "")


def _recalled(messages: Sequence[Message]) -> Said:
    thoughts = [
        str(one.get(field))
        for one in messages
        if one.get("role") == "assistant"
        for field in ("reasoning", "reasoning_content")
        if one.get(field)
    ]
    found = _WORD.findall(" ".join(thoughts))
    if not found:
        return Said("What I thought before is not here.", "I do not know it.")
    return Said(f"It was {found[-1]}.", found[-1])


def _seen(content: Any) -> str | None:
    """The colour of the first pixel of the first picture, None where there is none."""
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str):
            return _COLOURS.get(_pixel(url), "a picture of many colours")
    return None


def _pixel(url: str) -> tuple[int, ...]:
    """The first pixel of a PNG in a data: address; nothing of what is none."""
    try:
        data = base64.b64decode(url.partition("base64,")[2], validate=True)
        begin = data.index(b"IDAT") + 4
        size = int.from_bytes(data[begin - 8 : begin - 4], "big")
        return tuple(zlib.decompressobj().decompress(data[begin : begin + size], _PIXELS)[1:4])
    except (ValueError, zlib.error):
        return ()
