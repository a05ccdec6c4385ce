"""Runs in vLLM's own environment: parses as `vllm serve` does, then checks what it checks.

Three steps of the engine: its argument parser, `validate_parsed_serve_args`, and the engine
arguments built from the namespace. Then the checks of its start that need no model: the names of
the parsers, of the attention backend, and of the speculative method.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tests.judges.worker import Rules, abbreviated, answer, namespace

cli_args = import_module("vllm.entrypoints.launchers.cli_args")
engine_args = import_module("vllm.engine.arg_utils")
tool_parsers = import_module("vllm.tool_parsers").ToolParserManager
reasoning_parsers = import_module("vllm.reasoning").ReasoningParserManager
attention_config = import_module("vllm.config.attention").AttentionConfig
speculative = import_module("vllm.config.speculative")
known_variables = import_module("vllm.envs").environment_variables

parser: Any = cli_args.make_arg_parser(
    import_module("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="vllm serve")
)


def members(literal: object) -> set[str]:
    """Return the words of a Literal type, however deep they are nested."""
    words: set[str] = set()
    for part in typing.get_args(literal):
        words |= {part} if isinstance(part, str) else members(part)
    return words


def one_of(name: str, value: str | None, known: object) -> None:
    """Raise when `value` is none of `known`."""
    if value and value not in set(typing.cast("list[str]", known)):
        raise ValueError(f"{name}: {value!r} is not registered")


def parse(argv: list[str]) -> Mapping[str, object]:
    """Return the namespace; raise or exit as the engine does when it refuses."""
    args = parser.parse_args(argv)
    cli_args.validate_parsed_serve_args(args)
    if args.model_tag is not None:
        args.model = args.model_tag
    built = engine_args.AsyncEngineArgs.from_cli_args(args)
    one_of("--tool-call-parser", args.tool_call_parser, tool_parsers.list_registered())
    one_of("--reasoning-parser", args.reasoning_parser, reasoning_parsers.list_registered())
    if args.attention_backend is not None:
        attention_config(backend=args.attention_backend)
    draft = built.speculative_config or {}
    one_of("--speculative-config method", draft.get("method"), METHODS)
    unknown = set(draft) - DRAFT_FIELDS
    if unknown:
        raise ValueError(f"--speculative-config: unknown keys {', '.join(sorted(unknown))}")
    abbreviated(parser, argv)
    return namespace(args)


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Return the VLLM_ variables that this release doesn't read; it only warns about them."""
    return [name for name in env if name.startswith("VLLM_") and name not in known_variables]


METHODS = members(speculative.SpeculativeMethod)
DRAFT_FIELDS = set(speculative.SpeculativeConfig.__dataclass_fields__)

if __name__ == "__main__":
    answer(Rules(parse, unknown_variables))
