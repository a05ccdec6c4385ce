"""What the stand-in's parts hand to each other: a Mind, a Reply, a Problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["vllm", "sglang", "llamacpp"]


@dataclass(frozen=True, slots=True)
class Mind:
    """What the argv decided about answers."""

    engine: str
    model: str
    root: str
    #: tokens of prompt and answer together
    context: int
    #: the engine splits reasoning from content; without the parser `</think>` stays in it
    reasoning_parser: bool
    tool_parser: bool
    auto_tools: bool
    strict_thinking: bool = False
    #: /metrics is served
    metrics: bool = True
    #: how it misbehaves: mischief.WAYS
    mischief: frozenset[str] = frozenset()

    @property
    def family(self) -> Family:
        """Whose API it speaks: KTransformers' server is SGLang's."""
        match self.engine:
            case "vllm":
                return "vllm"
            case "llamacpp":
                return "llamacpp"
            case _:
                return "sglang"

    @property
    def field(self) -> str:
        """The message field that carries the reasoning."""
        usual, other = "reasoning_content", "reasoning"
        if self.family == "vllm":
            usual, other = other, usual
        return other if "rename-reasoning" in self.mischief else usual


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says; counts are tokens.

    `split`: reasoning comes in its own field. `shown`: it comes at all.
    """

    model: str
    reasoning: str
    content: str | None
    calls: tuple[Call, ...]
    finish: str
    prompt_tokens: int
    reasoning_tokens: int
    completion_tokens: int
    split: bool = True
    shown: bool = True
    #: the finish of an answer that is sent whole, where that differs
    finish_whole: str | None = None
    #: equal answers, for a request with `n`
    choices: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal: HTTP status, words, kind, and the field it is about."""

    status: int
    message: str
    kind: str = "BadRequestError"
    param: str | None = None
