"""What an endpoint owes, and the words that one run of the checks is made with. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from kimideploy.catalog.types import Model

Field = Literal["reasoning", "reasoning_content"]
FIELDS: tuple[Field, ...] = ("reasoning", "reasoning_content")

#: Why so many: a forced-thinking model spends its tokens on thinking first, and an answer that is
#: cut off there says nothing about the parsers (https://docs.sglang.io cookbook, Kimi-K2.7-Code).
MAX_TOKENS = 4096
#: Code words are one of each: 256 of them, so that none is guessed.
COLOURS = (
    "amber", "azure", "black", "coral", "green", "ivory", "khaki", "lemon",
    "mauve", "ochre", "olive", "pearl", "ruby", "silver", "violet", "white",
)  # fmt: skip
ANIMALS = (
    "badger", "beaver", "camel", "eagle", "falcon", "ferret", "heron", "jackal",
    "lizard", "magpie", "otter", "panda", "rabbit", "salmon", "tiger", "walrus",
)  # fmt: skip
#: how many are asked at once, in turn
CROWDS = (1, 4, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What an endpoint owes. None is unknown: then either is right, and the verdict says which."""

    model: str
    #: the field of a message that carries the reasoning
    reasoning_field: Field | None = None
    thinks: bool = True
    #: the reasoning of finished turns counts, too, not only that of the tool loop that is going on
    keeps_turns: bool = False
    calls_tools: bool = True
    #: e.g. functions.{name}:{index}
    tool_id: str = "functions.{name}:{index}"
    #: tokens of prompt and answer together
    context: int | None = None
    images: bool | None = None
    #: whether requests carry a key
    has_key: bool = False
    #: name of a request → the tokens its prompt has with the right template and tokenizer
    prompt_tokens: tuple[tuple[str, int], ...] = ()

    @property
    def max_tokens(self) -> int:
        """Tokens an answer may take; half of the context is the most an engine grants safely."""
        return MAX_TOKENS if self.context is None else min(MAX_TOKENS, self.context // 2)

    def call_id(self, name: str, index: int) -> str:
        """Return the id that the model's training made it expect."""
        return self.tool_id.format(name=name, index=index)


def owed(model: Model, served_name: str, **known: object) -> Promise:
    """Return what an endpoint of *model* owes under the name *served_name*."""
    said = {
        "thinks": model.thinking.mode != "none",
        "keeps_turns": model.thinking.preserve == "forced",
        "calls_tools": model.tool_parser is not None,
        "tool_id": model.tool_id,
        "images": model.vision is not None,
    }
    return Promise(model=served_name, **(said | known))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Words:
    """Code words that no answer can know by itself; drawn anew for each run."""

    secret: str
    #: tell a conversation with its reasoning from the same without it, for whoever remembers any
    numbers: tuple[str, str]
    #: one for each request of the largest crowd, all different
    echoes: tuple[str, ...] = field(default_factory=tuple)


def draw(seed: int) -> Words:
    """Return the words of the run *seed*; equal seeds draw equal words."""
    chance = random.Random(seed)  # noqa: S311  nobody attacks a code word
    every = [f"{colour}-{animal}" for colour in COLOURS for animal in ANIMALS]
    secret, *echoes = chance.sample(every, 1 + sum(CROWDS))
    numbers = [str(number) for number in chance.sample(range(1000, 10_000), 2)]
    return Words(secret, (numbers[0], numbers[1]), tuple(echoes))
