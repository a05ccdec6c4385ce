"""What a rule is: the requests it looks at, and how it judges their answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kimideploy.conformance.answers import Answer, Message, quote
from kimideploy.conformance.promise import FIELDS, Field, Promise, Words
from kimideploy.conformance.verdict import Outcome

PARSERS = "a version whose kimi_k2 parsers have the fixes"
REASONING_FLAG = "--reasoning-parser kimi_k2, in a version that knows it"
TOOL_FLAGS = "--tool-call-parser kimi_k2, with --enable-auto-tool-choice on vLLM"


@dataclass(frozen=True, slots=True)
class Finding:
    """A check without its name."""

    outcome: Outcome
    evidence: str
    cause: str | None = None
    fix: str | None = None
    link: str | None = None


def kept(evidence: str) -> Finding:
    """Return that a promise was kept."""
    return Finding("pass", evidence)


def broken(
    evidence: str, *, cause: str | None = None, fix: str | None = None, link: str | None = None
) -> Finding:
    """Return that a promise was broken."""
    return Finding("fail", evidence, cause, fix, link)


def spared(why: str) -> Finding:
    """Return that a promise was never made."""
    return Finding("not-applicable", why)


class NoMessage(Exception):  # noqa: N818
    """A request that owed a message brought none."""

    def __init__(self, name: str, answer: Answer) -> None:
        super().__init__(name)
        self.name = name
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Heard:
    """All that came back, by the name of the request."""

    promise: Promise
    words: Words
    answers: Mapping[str, Answer]
    #: each message once: to put a stream together costs as much as it is long
    _read: dict[str, Message | None] = field(default_factory=dict, repr=False, compare=False)

    def brought(self, name: str) -> Message | None:
        """Return the message that *name* brought, None if it brought none."""
        if name not in self._read:
            answer = self.answers.get(name)
            self._read[name] = answer.message if answer is not None and answer.ok else None
        return self._read[name]

    def message(self, name: str) -> Message:
        """Return the message that *name* brought; raises NoMessage."""
        message = self.brought(name)
        if message is None:
            raise NoMessage(name, self.answers[name])
        return message

    def messages(self) -> Iterator[tuple[str, Message]]:
        """Yield every message that came, with the name of its request."""
        for name in self.answers:
            message = self.brought(name)
            if message is not None:
                yield name, message

    @property
    def own_field(self) -> Field:
        """The field the reasoning is promised in, or where it came if any is right."""
        if self.promise.reasoning_field is not None:
            return self.promise.reasoning_field
        for _, message in self.messages():
            for name, text in message.reasoning.items():
                if text:
                    return name
        return FIELDS[0]


Judge = Callable[[Heard], Finding]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check: its name, the requests it needs and its judge.

    `quick`: it is of the quick suite, too. `spare` says why a promise is not made, if it isn't.
    """

    name: str
    judge: Judge
    asks: tuple[str, ...] = ()
    quick: bool = False
    spare: Callable[[Promise], str | None] = field(default=lambda _: None)

    def find(self, heard: Heard) -> Finding:
        """Return what the answers show."""
        why = self.spare(heard.promise)
        if why is not None:
            return spared(why)
        try:
            return self.judge(heard)
        except NoMessage as error:
            return refused(error.name, error.answer)


def no_tools(promise: Promise) -> str | None:
    """Spare a model without tool calls."""
    return None if promise.calls_tools else "the model has no tool parser"


def no_thoughts(promise: Promise) -> str | None:
    """Spare a model that does not think."""
    return None if promise.thinks else "the model does not think"


_TOLD = (
    (
        ("enable-auto-tool-choice",),
        "the engine runs without --enable-auto-tool-choice",
        "start it with --enable-auto-tool-choice beside --tool-call-parser kimi_k2",
    ),
    (("tool-call-parser", "tool_call_parser"), "the engine has no tool parser", TOOL_FLAGS),
    (
        ("reasoning_content is missing", "reasoning is missing"),
        "it refuses history without its reasoning, and the reasoning that was sent did not arrive",
        "send the field whose name the error tells; a proxy between may drop it",
    ),
)


def refused(name: str, answer: Answer) -> Finding:
    """Return the finding of a request that was answered with no message."""
    if answer.error is not None:
        return broken(f"{name}: {answer.error}", cause="the endpoint broke off or never answered")
    if answer.status in (301, 302, 303, 307, 308):
        to = quote(answer.headers.get("location", "nowhere"))
        return broken(
            f"{name}: status {answer.status}, to {to}",
            cause="the address is not the endpoint's own",
            fix="give the address it redirects to, if you trust it; redirects are not followed",
        )
    for words, cause, fix in _TOLD:
        if any(word in answer.body for word in words):
            return broken(f"{name}: {answer.said}", cause=cause, fix=fix)
    if answer.status == 429:  # noqa: PLR2004
        return broken(
            f"{name}: {answer.said}",
            cause="the endpoint takes no more at once, or so soon",
            fix="ask again later, or raise its limit",
        )
    if answer.status in (401, 403):
        return broken(
            f"{name}: status {answer.status}",
            cause="the endpoint asks for a key, or for another one",
            fix="--api-key-file FILE",
        )
    what = answer.said if not answer.ok else f"no message in {quote(answer.body)}"
    return broken(f"{name}: {what}")
