"""Write the stand-in's lists of flags from the engines' own parsers.

python -m tests.contract.make_flags
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from kimideploy.rehearsal import argv
from tests.judges import JUDGES, LLAMACPP
from tests.judges.judge import ROOT, WorkerJudge, worker_environment

FOLDER = Path(argv.__file__).parent / "flags"
_FROM = {
    "vllm": "vLLM {}: vllm/entrypoints/launchers/cli_args.py, make_arg_parser",
    "sglang": "SGLang {}: sglang/srt/server_args.py, ServerArgs.add_cli_args",
    "ktransformers": "sglang-kt {}: sglang/srt/server_args.py, ServerArgs.add_cli_args",
    "llamacpp": "llama.cpp {}: llama-server --help",
}
#: runs where the engine is; a line for each option: spellings, a space, how many values
_DUMP = """\
import argparse, importlib, sys
parser = importlib.import_module(sys.argv[1]).parser
for action in parser._actions:
    if action.option_strings:
        arity = {None: "1", "?": "?", 0: "0"}.get(action.nargs, "*")
        if isinstance(action, argparse.BooleanOptionalAction):
            arity = "0"
        print("FLAG", ",".join(action.option_strings), arity)
"""
_SPELLED = re.compile(r"(-[-\w]+(?:,\s+-[-\w]+)*)( \S.*?)?(?:\s{2,}|$)")


def text(engine: str) -> str:
    """Return what the file of *engine* must hold; its judge is built if it is missing."""
    judge = JUDGES[engine]
    judge.build(print)
    lines = _of_parser(judge) if isinstance(judge, WorkerJudge) else _of_help()
    return "\n".join([f"# {_FROM[engine].format(argv.VERSIONS[engine])}", *sorted(lines)]) + "\n"


def path(engine: str) -> Path:
    """Return the file of *engine*."""
    return FOLDER / f"{engine}-{argv.VERSIONS[engine]}.txt"


def _of_parser(judge: WorkerJudge) -> set[str]:
    paths = [str(ROOT), *map(str, judge.paths())]
    done = subprocess.run(
        [judge.python(), "-c", _DUMP, judge.worker],
        env={**worker_environment(), "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FLAG ")]
    return {line.removeprefix("FLAG ") for line in lines}


def _of_help() -> set[str]:
    """Read llama-server's help: spellings, and whether a value follows them."""
    done = subprocess.run([LLAMACPP.program, "--help"], capture_output=True, text=True, check=True)
    found = set()
    for line in done.stdout.splitlines():
        match = _SPELLED.match(line)
        if match is not None and not line.startswith("-----"):
            names = re.split(r",\s+", match[1])
            found.add(f"{','.join(names)} {'1' if match[2] else '0'}")
    return found


if __name__ == "__main__":
    for name in _FROM:
        path(name).write_text(text(name), encoding="utf-8")
        print(path(name).name)
