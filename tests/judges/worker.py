"""The loop of a worker: one JSON line in, one JSON line out, the engine's talk kept apart."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Parse = Callable[[list[str]], Mapping[str, object]]


@dataclass(frozen=True)
class Rules:
    """What the loop asks of one engine: its parser, and which variables it knows."""

    parse: Parse
    unknown_variables: Callable[[Mapping[str, str]], Sequence[str]]


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Add `changes` to the environment; it is as before afterwards."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def plain(value: object) -> object:
    """Return `value` as JSON can hold it; what it cannot becomes its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def judge(rules: Rules, argv: list[str], env: Mapping[str, str]) -> dict[str, object]:
    """Return the verdict on one argv; whatever the engine does, an answer comes."""
    said = io.StringIO()
    error: str | None = None
    values: Mapping[str, object] = {}
    with (
        environment(env),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            values = rules.parse(argv)
        except SystemExit as ended:
            # A parser that ends by itself has refused, or shown its help instead of serving.
            error = refusal(said.getvalue()) or f"the parser ended with {ended.code}"
        except Exception as failure:  # noqa: BLE001 - whatever the engine raises is its verdict
            error = f"{type(failure).__name__}: {failure}"
    unknown = rules.unknown_variables(env)
    if error is None and unknown:
        error = f"unknown environment variables: {', '.join(unknown)}"
    heard = [str(one.message) for one in warned]
    heard += [line for line in clean(said.getvalue()).splitlines() if "deprecat" in line.lower()]
    return {
        "ok": error is None,
        "error": error,
        "values": {key: plain(value) for key, value in values.items()} if error is None else {},
        "warnings": heard if error is None else [],
    }


def clean(text: str) -> str:
    """Return `text` without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def refusal(said: str) -> str:
    """Return the message of an argparse error, without the usage that comes before it."""
    found = re.search(r"^.*?: error: (.*)", clean(said), re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""


def answer(rules: Rules) -> None:
    """Answer lines until standard input ends. The engine's own prints go to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        question = json.loads(line)
        verdict = judge(rules, question["argv"], question["env"])
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()


def abbreviated(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Warn of each option that is only the beginning of one: the next release may have two."""
    known = parser._option_string_actions
    for word in argv:
        name = word.partition("=")[0]
        whole = name.partition(".")[0].replace("_", "-")
        if word.startswith("--") and name not in known and whole not in known:
            warnings.warn(f"{name} abbreviates an option", stacklevel=1)


def namespace(parsed: argparse.Namespace) -> dict[str, object]:
    """Return what was parsed, by name."""
    return dict(vars(parsed))
