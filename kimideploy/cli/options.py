"""Options that several commands share, each said once.

A dataclass whose fields are annotated for Typer is a group of options; `takes` gives a command
all of them and hands them over as one value.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

_MACHINE, _MODEL, _LAUNCH = "Machine", "What to serve", "How it is started"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """What `plan` and `serve` decide from; None was not said."""

    hardware: Annotated[
        str | None,
        typer.Option(
            help="a machine in one word: 8xH200, 2x8xH100-80GB, 1xRTX4090+512GiB",
            rich_help_panel=_MACHINE,
        ),
    ] = None
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            help="facts saved by `inspect --json`; once for each node; - is stdin",
            rich_help_panel=_MACHINE,
        ),
    ] = None
    ram: Annotated[
        str | None,
        typer.Option(help="host memory, e.g. 768GiB", rich_help_panel=_MACHINE),
    ] = None
    cores: Annotated[
        int | None, typer.Option(help="physical cores", min=1, rich_help_panel=_MACHINE)
    ] = None
    numa: Annotated[
        int | None, typer.Option(help="NUMA nodes", min=1, rich_help_panel=_MACHINE)
    ] = None
    disk: Annotated[
        str | None, typer.Option(help="free disk, e.g. 2TB", rich_help_panel=_MACHINE)
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            help="a YAML file with these options; ./kimideploy.yaml is read by itself",
            rich_help_panel=_MACHINE,
        ),
    ] = None
    profiles: Annotated[
        list[Path] | None,
        typer.Option(help="a folder of your own profiles; repeatable", rich_help_panel=_MACHINE),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(help="model id or repository (kimi-k2.7-code)", rich_help_panel=_MODEL),
    ] = None
    tier: Annotated[
        str | None, typer.Option(help="only this tier, e.g. int4-h200", rich_help_panel=_MODEL)
    ] = None
    engine: Annotated[
        str | None,
        typer.Option(
            help="only this engine: vllm, sglang, ktransformers or llamacpp",
            rich_help_panel=_MODEL,
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(help="only this checkpoint, e.g. int4", rich_help_panel=_MODEL),
    ] = None
    context: Annotated[
        str | None,
        typer.Option(help="tokens one request may take, e.g. 128k", rich_help_panel=_MODEL),
    ] = None
    min_context: Annotated[
        str | None,
        typer.Option(help="the least that makes sense (32k)", rich_help_panel=_MODEL),
    ] = None
    concurrency: Annotated[
        int | None,
        typer.Option(
            help="full-length requests the cache must hold at once (1)", rich_help_panel=_MODEL
        ),
    ] = None
    kv_dtype: Annotated[
        str | None,
        typer.Option(help="KV cache: bf16, fp8 or q8_0", rich_help_panel=_MODEL),
    ] = None
    goal: Annotated[
        str | None,
        typer.Option(help="balanced, latency, throughput, context or cost", rich_help_panel=_MODEL),
    ] = None
    text_only: Annotated[
        bool, typer.Option("--text-only", help="no images", rich_help_panel=_MODEL)
    ] = False
    draft: Annotated[
        bool,
        typer.Option("--draft", help="speculative decoding, EAGLE3", rich_help_panel=_MODEL),
    ] = False
    allow_tight: Annotated[
        bool,
        typer.Option(
            "--allow-tight",
            help="accept what fits only if the engine takes little",
            rich_help_panel=_MODEL,
        ),
    ] = False
    model_path: Annotated[
        str | None,
        typer.Option(help="the weights' folder on the machine", rich_help_panel=_LAUNCH),
    ] = None
    revision: Annotated[
        str | None,
        typer.Option(help="commit of the weights, 40 hex digits", rich_help_panel=_LAUNCH),
    ] = None
    served_name: Annotated[
        str | None,
        typer.Option(help="the name clients ask for (the model id)", rich_help_panel=_LAUNCH),
    ] = None
    host: Annotated[
        str | None,
        typer.Option(help="address to listen on (127.0.0.1)", rich_help_panel=_LAUNCH),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(help="port (the engine's own)", rich_help_panel=_LAUNCH),
    ] = None
    head_address: Annotated[
        str | None,
        typer.Option(help="the first node, as the others reach it", rich_help_panel=_LAUNCH),
    ] = None
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(help="one more word for the engine; repeatable", rich_help_panel=_LAUNCH),
    ] = None


def takes(
    group: type[Any], *, as_: str = "options"
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command the options of *group*; they arrive as its parameter *as_*."""
    hints = get_type_hints(group, include_extras=True)
    fields = [field.name for field in dataclasses.fields(group)]

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        own = inspect.signature(command, eval_str=True)
        kept = [p for p in own.parameters.values() if p.name != as_]
        added = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(group)
        ]

        @functools.wraps(command)
        def wrapper(*args: Any, **given: Any) -> T:
            options = group(**{name: given.pop(name) for name in fields})
            return command(*args, **{as_: options}, **given)

        parameters = sorted([*kept, *added], key=lambda parameter: parameter.kind)
        wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate
