"""Write the stand-in's lists of flags from the engines' own parsers.

python -m tests.contract.make_flags
"""

from __future__ import annotations

from pathlib import Path

from kimideploy.rehearsal import argv
from tests.judges import JUDGES

FOLDER = Path(argv.__file__).parent / "flags"
_FROM = {
    "vllm": "vLLM {}: vllm/entrypoints/launchers/cli_args.py, make_arg_parser",
    "sglang": "SGLang {}: sglang/srt/server_args.py, ServerArgs.add_cli_args",
    "ktransformers": "sglang-kt {}: sglang/srt/server_args.py, ServerArgs.add_cli_args",
    "llamacpp": "llama.cpp {}: llama-server --help",
}


def text(engine: str) -> str:
    """Return what the file of *engine* must hold."""
    head = _FROM[engine].format(argv.VERSIONS[engine])
    return "\n".join([f"# {head}", *JUDGES[engine].flags()]) + "\n"


def path(engine: str) -> Path:
    """Return the file of *engine*."""
    return FOLDER / f"{engine}-{argv.VERSIONS[engine]}.txt"


if __name__ == "__main__":
    for name in _FROM:
        path(name).write_text(text(name), encoding="utf-8")
        print(path(name).name)
