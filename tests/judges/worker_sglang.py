"""Runs with SGLang, or its KTransformers fork, on the path: parses as the launch command does.

The argument parser and nothing more: what SGLang does with the namespace next, its resolution,
reads the checkpoint and asks the GPU, and the fork's `ServerArgs` can't even be made without one.

The fork imports torchvision for pictures it never shows here; a stub stands in for that module
alone, and only after transformers has learnt that the real one is missing.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from tests.judges.worker import Rules, abbreviated, answer, namespace


class Anything(types.ModuleType):
    """A module that has every name: a class without behaviour."""

    __path__: list[str] = []  # noqa: RUF012 - a package of no folder

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Torchvision(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Finds torchvision and all below it, as empty modules."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: types.ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for torchvision's modules only."""
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the stub."""
        return Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


def stub_torchvision() -> None:
    """Let `import torchvision` pass where the package is missing."""
    if importlib.util.find_spec("torchvision") is None:
        import_module("transformers.utils.import_utils").is_torchvision_available()
        sys.meta_path.append(Torchvision())


stub_torchvision()
server_args = import_module("sglang.srt.server_args")
parser = argparse.ArgumentParser(prog="sglang serve")
server_args.ServerArgs.add_cli_args(parser)


def parse(argv: list[str]) -> Mapping[str, object]:
    """Return the namespace; raise or exit as the engine does when it refuses."""
    args = parser.parse_args(argv)
    abbreviated(parser, argv)
    return namespace(args)


@lru_cache(maxsize=1)
def known_variables() -> frozenset[str]:
    """Return every SGLANG_ and SGL_ word in the package's own source."""
    package = Path(str(server_args.__file__)).parents[1]
    words: set[str] = set()
    for source in package.rglob("*.py"):
        words.update(
            re.findall(r"\bSGL(?:ANG)?_[A-Z0-9_]+\b", source.read_text("utf-8", "replace"))
        )
    return frozenset(words)


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Return the SGLANG_ variables that this release never mentions."""
    ours = [name for name in env if name.startswith(("SGLANG_", "SGL_"))]
    return [name for name in ours if name not in known_variables()]


if __name__ == "__main__":
    answer(Rules(parse, unknown_variables))
