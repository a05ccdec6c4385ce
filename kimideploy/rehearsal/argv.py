"""Read the planned engine's own argv: refuse what it would refuse, keep what matters to a stand-in.

The flags each engine knows lie in `flags/<engine>-<version>.txt`, one a line: spellings joined by
commas, a space, and how many values it takes (0, 1, ? or *). They were written by the engines'
own parsers (tests/contract/make_flags.py), and a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: the version whose parser wrote the flags
VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.23", "ktransformers": "0.7.2", "llamacpp": "b11434"}
_SPECIAL = {"vllm": "vllm serve", "sglang": "sglang serve", "ktransformers": "launch_server.py"}


class Refused(Exception):  # noqa: N818
    """The engine would not start with these words; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message, self.code = message, code


@dataclass(frozen=True, slots=True)
class Words:
    """What the argv says; a flag given twice keeps its last value."""

    engine: str
    model: str
    values: dict[str, str] = field(default_factory=dict)
    switches: frozenset[str] = frozenset()

    def get(self, *spellings: str, default: str) -> str:
        """Return the value of the first spelling that was given."""
        return next((self.values[name] for name in spellings if name in self.values), default)

    def number(self, *spellings: str, default: int) -> int:
        """Return a value as a number; raises Refused as the engine's parser does."""
        text = self.get(*spellings, default=str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 12):  # noqa: PLR2004
            raise refusal(self.engine, f"argument {spellings[0]}: invalid int value: '{text}'")
        return int(text)


def read(argv: Sequence[str]) -> Words:  # noqa: C901  one branch a way to write a flag
    """Return what *argv* says; raises Refused with the engine's words and exit code."""
    engine, rest, model = _engine(argv)
    known = spellings(engine)
    values: dict[str, str] = {}
    switches: set[str] = set()
    strays: list[str] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or _is_number(word):
            strays.append(word)
            continue
        arity = known.get(name)
        if arity is None or (equals and arity == "0"):
            raise unknown(engine, word)
        if equals:
            values[name] = value
        elif arity == "0":
            switches.add(name)
        elif words and (arity == "1" or not words[0].startswith("-")):
            values[name] = words.pop(0)
            while arity == "*" and words and not words[0].startswith("-"):
                values[name] += f" {words.pop(0)}"
        elif arity == "1":
            raise refusal(engine, f"argument {name}: expected one argument")
        else:
            switches.add(name)
    if strays and model is None and engine == "vllm":
        model = strays.pop(0)
    if strays:
        raise unknown(engine, " ".join(strays))
    found = model or values.get("--model-path") or values.get("--model") or values.get("-m")
    if not found:
        raise refusal(engine, "the following arguments are required: --model-path")
    return Words(engine=engine, model=found, values=values, switches=frozenset(switches))


def spellings(engine: str) -> dict[str, str]:
    """Return every spelling of every flag of *engine* with its arity."""
    path = Path(__file__).parent / "flags" / f"{engine}-{VERSIONS[engine]}.txt"
    known: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            names, arity = line.rsplit(" ", 1)
            known |= dict.fromkeys(names.split(","), arity)
    return known


def refusal(engine: str, message: str) -> Refused:
    """Return a refusal in the words of the engine's parser."""
    if engine == "llamacpp":
        return Refused(f"error: {message}", 1)
    return Refused(f"{_SPECIAL[engine]}: error: {message}", 2)


def unknown(engine: str, word: str) -> Refused:
    """Return how the engine refuses a flag it does not know."""
    if engine == "llamacpp":
        return Refused(f"error: invalid argument: {word}", 1)
    return refusal(engine, f"unrecognized arguments: {word}")


def _engine(argv: Sequence[str]) -> tuple[str, Sequence[str], str | None]:
    """Return the engine, the words after its command, and the model if it stands alone."""
    names = [Path(word).name for word in argv[:3]]
    if names[:2] == ["vllm", "serve"]:
        return "vllm", argv[2:], None
    if names[:2] == ["sglang", "serve"]:
        return "sglang", argv[2:], None
    if names[:1] == ["llama-server"]:
        return "llamacpp", argv[1:], None
    if list(argv[1:3]) == ["-m", "sglang.launch_server"]:
        kt = any(word.startswith("--kt-") for word in argv)
        return ("ktransformers" if kt else "sglang"), argv[3:], None
    raise Refused(f"no engine is started by: {' '.join(argv[:3])}", 2)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
