"""Many at once, sound words, and how they flow."""

from __future__ import annotations

import re

from kimideploy.conformance.answers import quote
from kimideploy.conformance.promise import CROWDS
from kimideploy.conformance.rules.base import Finding, Heard, Judge, Rule, broken, kept, spared

#: the same sign so often, or the same passage so often in a row, is no language
#: (a ruler of dashes is, and so are blanks)
_RULER = re.escape("-=_*#~.+")
_SIGN = re.compile(rf"([^\s{_RULER}])\1{{39,}}")
_LOOP = re.compile(r"(.{4,80}?)\1{8,}", re.DOTALL)
_WORDY = re.compile(rf"[^\s{_RULER}]")
#: Seconds and events, guesses: of a stream shorter than the first nothing is said; one of so many
#: events that all come within the second was held back, as no engine is that fast.
_SHORT, _HELD, _EVENTS = 1.0, 0.02, 8


def echoes(size: int) -> tuple[str, ...]:
    """Return the names of the requests of a crowd."""
    return tuple(f"echo {size}.{number}" for number in range(size))


def _words(heard: Heard) -> dict[str, str]:
    """The code word of each request."""
    names = [name for size in CROWDS for name in echoes(size)]
    return dict(zip(names, heard.words.echoes, strict=False))


def _apart(size: int) -> Judge:
    def judge(heard: Heard) -> Finding:
        words = _words(heard)
        for name in echoes(size):
            content = heard.message(name).content
            foreign = next((w for n, w in words.items() if n != name and w in content), None)
            if foreign is not None:
                return broken(
                    f"{name} was to repeat {quote(words[name])} and got {quote(foreign)}",
                    cause="answers of conversations are mixed up",
                    fix="stop using it: one person's answers reach another",
                )
            if words[name] not in content:
                return broken(
                    f"{name} was to repeat {quote(words[name])}: {quote(content)}",
                    cause="under load the answer goes wrong"
                    if size > 1
                    else "the prompt does not arrive whole",
                )
        return kept(f"{size} of {size} got their own word back")

    return judge


def _sound(heard: Heard) -> Finding:
    count = 0
    for name, message in heard.messages():
        for text in (message.content, *message.reasoning.values()):
            found = _SIGN.search(text) or _looped(text)
            if found is not None:
                return broken(
                    f"{name}: {quote(found[0])}, {len(found[0])} signs of it",
                    cause="numbers go wrong (a kernel, a quantisation, NaN), or sampling loops",
                    fix="temperature 1.0 and top_p 0.95; the plan's warnings name known cases",
                    link="https://github.com/vllm-project/vllm/issues/40357",
                )
        count += 1
    heard.message("question")
    return kept(f"{count} answers, none of one sign or one passage again and again")


def _looped(text: str) -> re.Match[str] | None:
    """The first passage that comes again and again and is no ruler."""
    return next((found for found in _LOOP.finditer(text) if _WORDY.search(found[1])), None)


def _flows(heard: Heard) -> Finding:
    answer = heard.answers["question streamed"]
    heard.message("question streamed")
    if answer.events is None:
        return broken(
            "asked for a stream, the answer came whole",
            cause="a proxy gathers streams",
            fix="no buffering in the proxy (nginx: proxy_buffering off)",
        )
    if answer.first is None or answer.seconds < _SHORT:
        return spared(f"all of it came within {_SHORT:.0f} s: too short to tell")
    if len(answer.events) >= _EVENTS and answer.seconds - answer.first < _HELD:
        return broken(
            f"after {answer.first:.1f} s {len(answer.events)} events came at once",
            cause="a proxy holds the stream back until it is over",
            fix="no buffering in the proxy (nginx: proxy_buffering off)",
        )
    return kept(f"the first text after {answer.first:.2f} of {answer.seconds:.1f} s")


RULES = (
    *(Rule(f"{size} at once", _apart(size), echoes(size)) for size in CROWDS),
    Rule("sound words", _sound, ("question",), quick=True),
    Rule("the stream flows", _flows, ("question streamed",), quick=True),
)
