"""Answer argv lines with what the engine's own parser says; runs in the judge's environment.

    worker.py vllm|sglang|ktransformers

Each line on stdin is a JSON list of words after the command; each line on stdout is
{"ok": …, "error": …, "values": …}. SGLang's ServerArgs can't be made without a GPU, so there
the argument parser alone judges; vLLM also validates what was parsed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import sys
import types
from typing import Any


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Packages the kt fork imports on its way to the parser and that have no CPU build."""

    names = ("torchvision", "torchaudio", "sgl_kernel", "flashinfer")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname.partition(".")[0] not in self.names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__path__ = []

        def missing(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Anything()

        module.__getattr__ = missing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: Any) -> None:
        pass


class _Anything:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Anything()

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __mro_entries__(self, bases: Any) -> tuple[()]:
        return ()


def parser(engine: str) -> tuple[argparse.ArgumentParser, Any]:
    """Return the engine's parser, and what validates its result."""
    if engine == "vllm":
        from vllm.entrypoints.launchers.cli_args import (
            make_arg_parser,
            validate_parsed_serve_args,
        )
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        made = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
        return made, validate_parsed_serve_args
    if engine == "ktransformers":
        sys.meta_path.insert(0, _StandIns())
    from sglang.srt.server_args import ServerArgs

    made = argparse.ArgumentParser(prog="launch_server.py")
    ServerArgs.add_cli_args(made)
    return made, None


def flags(made: argparse.ArgumentParser) -> list[str]:
    """Return each flag's spellings and how many values it takes, one a line."""
    lines = []
    for action in made._actions:
        if not action.option_strings:
            continue
        arity = {None: "1", "?": "?", "*": "*", "+": "*", 0: "0"}.get(action.nargs, "*")  # type: ignore[call-overload]
        if isinstance(action, argparse.BooleanOptionalAction):
            arity = "0"
        lines.append(f"{','.join(action.option_strings)} {arity}")
    return sorted(lines)


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    made, validate = parser(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        noise = io.StringIO()
        answer: dict[str, Any] = {"ok": True, "error": None, "values": {}}
        try:
            if asked == "flags":
                answer["values"] = {"flags": flags(made)}
            else:
                with contextlib.redirect_stderr(noise):
                    parsed = made.parse_args(asked)
                    if validate is not None:
                        validate(parsed)
                values = json.dumps(vars(parsed), default=str)
                answer["values"] = json.loads(values)
        except SystemExit:
            answer |= {"ok": False, "error": noise.getvalue().strip()[-600:]}
        except Exception as error:
            answer |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:600]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
