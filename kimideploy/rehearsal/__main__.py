"""The stand-in engine: `python -m kimideploy.rehearsal [options] -- ARGV…`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from kimideploy.rehearsal.argv import Refused, Words, read
from kimideploy.rehearsal.brain import Mind
from kimideploy.rehearsal.logs import FAILURES, Line, loading, port
from kimideploy.rehearsal.server import Server

_FAILURES = (*FAILURES, "hang", "wrong-model")
#: the part of the load after which a planned failure comes
_DIES_AT = 0.5


def main() -> None:
    """Load, serve until SIGTERM or SIGINT, and leave with 0."""
    options, argv = _options()
    try:
        words = read(argv)
        mind = _mind(words, strict=options.strict_thinking, fail=options.fail)
        address = (words.get("--host", default="127.0.0.1"), port(words))
    except Refused as refused:
        sys.stderr.write(f"{refused.message}\n")
        sys.exit(refused.code)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _leave)
    _load(words, options)
    if options.fail == "hang":
        threading.Event().wait()
    try:
        server = Server(address, mind, key=os.environ.get("VLLM_API_KEY") or None)
    except OSError as error:
        sys.stdout.write(f"ERROR:    {error}\n")
        sys.exit(1)
    if words.switches.isdisjoint({"--headless"}):
        server.serve_forever(poll_interval=0.1)


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="kimideploy.rehearsal", description=__doc__)
    parser.add_argument("--load-seconds", type=float, default=3.0, help="how long the load takes")
    parser.add_argument("--shards", type=int, default=64, help="shards the load shows")
    parser.add_argument("--strict-thinking", action="store_true", help="as Moonshot's API does")
    parser.add_argument("--fail", choices=_FAILURES, help="die in this way")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:cut]), words[cut + 1 :]


def _mind(words: Words, *, strict: bool, fail: str | None) -> Mind:
    name = words.get("--served-model-name", "--alias", "-a", default=words.model)
    context = words.number(
        "--max-model-len", "--context-length", "--ctx-size", "-c", default=262_144
    )
    llama = words.engine == "llamacpp"
    return Mind(
        engine=words.engine,
        model="another-model" if fail == "wrong-model" else name,
        root=words.model,
        context=context,
        reasoning_parser=llama or "--reasoning-parser" in words.values,
        tool_parser=llama or "--tool-call-parser" in words.values,
        auto_tools="--enable-auto-tool-choice" in words.switches,
        strict_thinking=strict,
    )


def _load(words: Words, options: argparse.Namespace) -> None:
    start, spent = time.monotonic(), 0.0
    after_bar = False
    for line in loading(words, max(1, options.shards)):
        spent += line.share
        _wait_until(start + spent * options.load_seconds)
        _show(line, after_bar=after_bar)
        after_bar = line.bar
        if options.fail in FAILURES and spent >= _DIES_AT:
            text, code = FAILURES[options.fail]
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.flush()
            sys.exit(code)


def _show(line: Line, *, after_bar: bool) -> None:
    if line.bar:
        sys.stdout.write(f"\r{line.text}")
    else:
        sys.stdout.write(f"\n{line.text}\n" if after_bar else f"{line.text}\n")
    sys.stdout.flush()


def _wait_until(moment: float) -> None:
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)


def _leave(_number: int, _frame: object) -> NoReturn:
    os._exit(0)


if __name__ == "__main__":
    main()
