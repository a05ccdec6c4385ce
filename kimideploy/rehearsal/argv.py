"""Read the planned engine's own argv: refuse what it would refuse, keep what matters to a stand-in.

The flags each engine knows lie in `flags/<engine>-<version>.txt`, one a line: spellings joined by
commas, a space, and how many values it takes (0, 1, ? or *). They were written by the engines'
own parsers (tests/contract/make_flags.py), and a test holds them equal. Which values a flag takes
is not known here, but for the numbers that are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: the version whose parser wrote the flags
VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.23", "ktransformers": "0.7.2", "llamacpp": "b11434"}
_USAGE = {
    "vllm": ("usage: vllm serve [model_tag] [options]", "vllm serve"),
    "sglang": ("usage: sglang serve [-h] --model-path MODEL_PATH …", "sglang serve"),
    "ktransformers": ("usage: launch_server.py [-h] --model-path MODEL_PATH …", "launch_server.py"),
}
#: what vLLM takes for a number: 4096, 8k (decimal), 8K (binary), 1.5m
_NUMBER = re.compile(r"(\d{1,12})(?:\.(\d+))?([kmgtKMGT]?)", re.ASCII)
_DECIMAL, _BINARY, _STEPS = 1000, 1024, "kmgt"


class Refused(Exception):  # noqa: N818
    """The engine would not start with these words; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message, self.code = message, code


@dataclass(frozen=True, slots=True)
class Words:
    """What the argv says; a flag given twice keeps its last value, one with many its first."""

    engine: str
    model: str
    values: Mapping[str, str] = field(default_factory=dict)
    switches: frozenset[str] = frozenset()

    def get(self, *spellings: str, default: str) -> str:
        """Return the value of the first spelling that was given."""
        return next((self.values[name] for name in spellings if name in self.values), default)

    def number(self, *spellings: str, default: int) -> int:
        """Return a value as a number, `default` for one left to the engine.

        Raises Refused as the engine's parser does.
        """
        text = self.get(*spellings, default=str(default))
        if text in ("auto", "-1"):
            return default
        found = _NUMBER.fullmatch(text)
        if found is None or (self.engine != "vllm" and (found[2] or found[3])):
            raise refusal(self.engine, f"argument {spellings[0]}: invalid int value: {text!r}")
        base = _DECIMAL if found[3].islower() else _BINARY
        scale = base ** (_STEPS.index(found[3].lower()) + 1) if found[3] else 1
        return int(float(f"{found[1]}.{found[2]}") * scale) if found[2] else int(found[1]) * scale


def read(argv: Sequence[str]) -> Words:
    """Return what *argv* says; raises Refused with the engine's words and exit code."""
    engine, rest = _engine(argv)
    known = spellings(engine)
    values: dict[str, str] = {}
    switches: set[str] = set()
    strays: list[str] = []
    words = list(rest)
    model = words.pop(0) if engine == "vllm" and words and not _flag(words[0]) else None
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        full = _spelt(engine, name, known) if _flag(word) else None
        if full is None:
            strays.append(word)
        elif equals and known[full] == "0":
            raise refusal(engine, f"argument {full}: ignored explicit argument {value!r}")
        elif equals:
            values[full] = value
        elif (taken := _value(engine, full, known[full], words)) is None:
            switches.add(full)
        else:
            values[full] = taken
    if engine == "vllm" and model is None and strays and not _flag(strays[0]):
        model = strays.pop(0)
    if strays:
        raise unknown(engine, strays)
    found = model or values.get("--model-path") or values.get("--model") or values.get("-m")
    if not found:
        raise refusal(engine, "the following arguments are required: --model-path/--model")
    if "--enable-auto-tool-choice" in switches and "--tool-call-parser" not in values:
        raise Refused("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser", 1)
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
    usage, program = _USAGE[engine]
    return Refused(f"{usage}\n{program}: error: {message}", 2)


def unknown(engine: str, words: Sequence[str]) -> Refused:
    """Return how the engine refuses words it has no use for; llama.cpp stops at the first."""
    if engine == "llamacpp":
        return refusal(engine, f"invalid argument: {words[0]}")
    return refusal(engine, f"unrecognized arguments: {' '.join(words)}")


def _value(engine: str, name: str, arity: str, words: list[str]) -> str | None:
    """Take the values of flag *name* off *words*; return the first, None for a switch."""
    # Why: llama-server takes whatever follows, argparse no flag.
    bold = engine == "llamacpp" and arity == "1"
    if arity == "0" or not words or (_flag(words[0]) and not bold):
        if arity == "1":
            raise refusal(engine, f"argument {name}: expected one argument")
        return None
    value = words.pop(0)
    while arity == "*" and words and not _flag(words[0]):
        words.pop(0)
    return value


def _spelt(engine: str, name: str, known: Mapping[str, str]) -> str | None:
    """Return the flag that *name* spells; argparse takes any beginning that names only one.

    vLLM also takes underscores, and keys of an option that is JSON (`--compilation-config.mode`).
    """
    if name in known or engine == "llamacpp":
        return name if name in known else None
    if engine == "vllm":
        if name.startswith("--"):
            name = name.partition(".")[0].replace("_", "-")
        elif name[:2] in known and name[2:].isdigit():
            name = name[:2]
    if name in known or not name.startswith("--"):
        return name if name in known else None
    near = [flag for flag in known if flag.startswith(name)]
    if len(near) > 1:
        raise refusal(engine, f"ambiguous option: {name} could match {', '.join(near)}")
    return near[0] if near else None


def _engine(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the engine and the words after its command."""
    names = [Path(word).name for word in argv[:3]]
    if names[:2] == ["vllm", "serve"]:
        return "vllm", argv[2:]
    if names[:2] == ["sglang", "serve"]:
        return "sglang", argv[2:]
    if names[:1] == ["llama-server"]:
        return "llamacpp", argv[1:]
    if list(argv[1:3]) == ["-m", "sglang.launch_server"]:
        kt = any(word.startswith("--kt-") for word in argv)
        return ("ktransformers" if kt else "sglang"), argv[3:]
    raise Refused(f"no engine is started by: {' '.join(argv[:3])}", 2)


def _flag(word: str) -> bool:
    """Whether *word* is read as a flag: a dash, and no negative number."""
    return len(word) > 1 and word[0] == "-" and not re.fullmatch(r"-\d+|-\d*\.\d+", word)
