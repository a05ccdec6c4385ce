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
from kimideploy.rehearsal.failures import ENDINGS, WAYS, Death, death
from kimideploy.rehearsal.logs import Line, farewell, loading, port, serving
from kimideploy.rehearsal.mischief import WAYS as MISCHIEF
from kimideploy.rehearsal.server import Server
from kimideploy.rehearsal.types import Mind

#: the part of the load after which a planned failure comes
_DIES_AT = 0.5
#: environment variables the engines take their API key from
_KEYS = {"vllm": "VLLM_API_KEY", "llamacpp": "LLAMA_API_KEY"}


def main() -> None:
    """Load, serve until SIGTERM or SIGINT, and leave with 0."""
    options, argv = _options()
    try:
        words = read(argv)
        mind = _mind(words, options)
        address = (words.get("--host", default="127.0.0.1"), port(words))
        end = death(options.fail, mind, *address) if options.fail in ENDINGS else None
    except Refused as refused:
        sys.stderr.write(f"{refused.message}\n")
        sys.exit(refused.code)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: _leave(mind))
    headless = "--headless" in words.switches
    server = None if headless else _server(address, mind, words)
    _load(words, options, end)
    if options.fail == "hang" or server is None:
        threading.Event().wait()
    else:
        _serve(server, words)


def _server(address: tuple[str, int], mind: Mind, words: Words) -> Server:
    """Return a server that holds the port; llama-server already says that it is loading."""
    key = words.values.get("--api-key") or os.environ.get(_KEYS.get(mind.family, ""))
    try:
        server = Server(address, mind, key=key or None)
    except OSError:
        _die(death("port", mind, *address))
    if mind.family == "llamacpp":
        server.server_activate()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


def _serve(server: Server, words: Words) -> None:
    server.ready.set()
    if server.mind.family != "llamacpp":
        server.server_activate()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    for line in serving(words):
        _show(line)
    threading.Event().wait()


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="kimideploy.rehearsal", description=__doc__)
    parser.add_argument("--load-seconds", type=float, default=3.0, help="how long the load takes")
    parser.add_argument("--shards", type=int, default=64, help="shards the load shows")
    parser.add_argument("--strict-thinking", action="store_true", help="as Moonshot's API does")
    parser.add_argument("--fail", choices=WAYS, help="die in this way")
    parser.add_argument(
        "--misbehave", action="append", choices=MISCHIEF, default=[], help="with this fault"
    )
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:cut]), words[cut + 1 :]


def _mind(words: Words, options: argparse.Namespace) -> Mind:
    name = words.get("--served-model-name", "--alias", "-a", default=words.model)
    context = words.number(
        "--max-model-len", "--context-length", "--ctx-size", "-c", default=262_144
    )
    llama = words.engine == "llamacpp"
    parsed = words.get("--reasoning-format", default="deepseek") != "none"
    return Mind(
        engine=words.engine,
        model="another-model" if options.fail == "wrong-model" else name,
        root=words.model,
        context=context or 262_144,
        reasoning_parser=parsed if llama else "--reasoning-parser" in words.values,
        tool_parser=llama or "--tool-call-parser" in words.values,
        auto_tools="--enable-auto-tool-choice" in words.switches,
        strict_thinking=options.strict_thinking,
        mischief=frozenset(options.misbehave),
        metrics=words.engine == "vllm" or bool(words.switches & {"--metrics", "--enable-metrics"}),
    )


def _load(words: Words, options: argparse.Namespace, end: Death | None) -> None:
    start, spent = time.monotonic(), 0.0
    for line in loading(words, max(1, options.shards)):
        spent += line.share
        _wait_until(start + spent * options.load_seconds)
        _show(line)
        if end is not None and spent >= _DIES_AT:
            _die(end)


def _show(line: Line) -> None:
    sys.stdout.write(f"\r{line.text}" if line.bar else f"{line.text}\n")
    sys.stdout.flush()


def _wait_until(moment: float) -> None:
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)


def _die(end: Death) -> NoReturn:
    sys.stdout.write(f"\n{end.text}\n")
    sys.stdout.flush()
    if end.code < 0:
        os.kill(os.getpid(), -end.code)
    sys.exit(end.code)


def _leave(mind: Mind) -> NoReturn:
    for line in farewell(mind.engine):
        os.write(1, f"{line}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
