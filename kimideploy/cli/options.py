"""The options that commands share, each declared once; None where the user said nothing."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from kimideploy.catalog.types import EngineId, KvDtype
from kimideploy.cli.completion import checkpoints, hardware_words, models, tiers
from kimideploy.planning.types import Goal
from kimideploy.quantities import parse_bytes

_TOKENS = re.compile(r"([0-9]{1,9})\s*([km]?)", re.IGNORECASE | re.ASCII)
_SCALE = {"": 1, "k": 1 << 10, "m": 1 << 20}


def tokens(text: str) -> int:
    """Return the tokens that *text* names: 32768, 128k (131,072) or 1m."""
    found = _TOKENS.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a number of tokens such as 32768 or 128k")
    return int(found[1]) * _SCALE[found[2].lower()]


def amount(text: str) -> int:
    """Return the bytes that *text* names, 512GiB or 595GB."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def rate(text: str) -> int:
    """Return the bytes a second that *text* names, 200MB or 200MB/s."""
    found = amount(text.strip().removesuffix("/s"))
    if found < 1:
        raise typer.BadParameter(f"{text!r} would let nothing through")
    return found


def folder(text: str) -> Path:
    """Return the path that *text* names; an empty word names none, though Path() takes it."""
    if not text.strip():
        raise typer.BadParameter("'' names no folder")
    return Path(text).expanduser()


HardwareOpt = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        metavar="WORD",
        autocompletion=hardware_words,
        help="a machine you may not have yet: 8xH200, 2x8xH100-80GB, 1xRTX4090+512GiB",
    ),
]
FactsOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--facts",
        metavar="FILE",
        help="a machine saved by `inspect --json`; - is stdin; once for each node",
    ),
]
RamOpt = Annotated[
    int | None,
    typer.Option(
        "--ram", metavar="SIZE", parser=amount, help="host memory of each node, e.g. 512GiB"
    ),
]
CoresOpt = Annotated[
    int | None, typer.Option("--cores", metavar="N", help="physical cores of each node")
]
NumaOpt = Annotated[int | None, typer.Option("--numa", metavar="N", help="NUMA nodes of each node")]
DiskOpt = Annotated[
    int | None,
    typer.Option(
        "--disk", metavar="SIZE", parser=amount, help="free disk of each node, e.g. 1.5TB"
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID",
        autocompletion=models,
        help="a model of `profiles list`  [default: kimi-k2.7-code]",
    ),
]
TierOpt = Annotated[
    str | None,
    typer.Option(
        "--tier",
        metavar="ID",
        autocompletion=tiers,
        help="only this kind of serving: int4-h200, gguf-2bit, hybrid …",
    ),
]
EngineOpt = Annotated[
    EngineId | None, typer.Option("--engine", help="only this engine", show_default=False)
]
CheckpointOpt = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="ID",
        autocompletion=checkpoints,
        help="only these weights: int4, gguf-ud-q2_k_xl …",
    ),
]
ContextOpt = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        parser=tokens,
        help="tokens one request may take, 32768 or 128k  [default: the most that fits]",
    ),
]
MinContextOpt = Annotated[
    int | None,
    typer.Option(
        "--min-context",
        metavar="TOKENS",
        parser=tokens,
        help="the least context that is of use  [default: 32k for a model that must think]",
    ),
]
ConcurrencyOpt = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        metavar="N",
        help="requests of full length that must fit at once  [default: 1]",
    ),
]
FractionOpt = Annotated[
    float | None,
    typer.Option(
        "--memory-fraction",
        metavar="SHARE",
        help="share of each GPU the engine may fill, 0.9  [default: chosen]",
    ),
]
BatchOpt = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        metavar="TOKENS",
        parser=tokens,
        help="tokens of one pass over a prompt  [default: chosen]",
    ),
]
SequencesOpt = Annotated[
    int | None,
    typer.Option(
        "--sequences", metavar="N", help="sequences decoded at once, at most  [default: chosen]"
    ),
]
DcpOpt = Annotated[
    int | None,
    typer.Option("--dcp", metavar="N", help="spread the KV cache over N GPUs  [default: chosen]"),
]
KvOpt = Annotated[KvDtype | None, typer.Option("--kv-dtype", help="type of the KV cache")]
TextOnlyOpt = Annotated[
    bool | None,
    typer.Option("--text-only/--vision", help="leave the vision tower out  [default: --vision]"),
]
DraftOpt = Annotated[
    bool | None,
    typer.Option("--draft/--no-draft", help="add an EAGLE3 draft model  [default: --no-draft]"),
]
GoalOpt = Annotated[
    Goal | None, typer.Option("--goal", help="what decides among what fits  [default: balanced]")
]
AllowTightOpt = Annotated[
    bool | None,
    typer.Option(
        "--allow-tight/--no-allow-tight",
        help="take what fits only by the lowest overhead seen",
    ),
]
ServedNameOpt = Annotated[
    str | None,
    typer.Option("--served-name", metavar="NAME", help="the name clients ask for"),
]
BindOpt = Annotated[
    str | None,
    typer.Option("--bind", metavar="ADDRESS", help="loopback only  [default: 127.0.0.1]"),
]
PortOpt = Annotated[
    int | None,
    typer.Option("--port", metavar="N", help="where it listens  [default: the engine's own]"),
]
RevisionOpt = Annotated[
    str | None,
    typer.Option("--revision", metavar="COMMIT", help="the commit of the weights to pin"),
]
ModelPathOpt = Annotated[
    str | None,
    typer.Option(
        "--model-path", metavar="PATH", help="the weights on the node, instead of the hub's"
    ),
]
HeadAddressOpt = Annotated[
    str | None,
    typer.Option(
        "--head-address", metavar="ADDRESS", help="the first node, as the others reach it"
    ),
]
EngineArgOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg", metavar="WORD", help="a word for the engine's own command; repeatable"
    ),
]
ProfilesOpt = Annotated[
    list[Path] | None,
    typer.Option("--profiles", metavar="DIR", help="a folder of your own profiles; repeatable"),
]
ConfigOpt = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="options from a file; flags win  [default: kimideploy.yaml, if it is here]",
    ),
]
PlanFileOpt = Annotated[
    str | None, typer.Option("--plan", help="a file of `plan --json`; - is stdin")
]
NodeOpt = Annotated[int, typer.Option(help="which of the plan's nodes this machine is")]
VenvOpt = Annotated[
    Path | None, typer.Option(help="the Python environment the engine is installed in")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print JSON")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the user of `plan` or `serve` said, flag by flag; None where nothing was said."""

    hardware: HardwareOpt = None
    facts: FactsOpt = None
    ram: RamOpt = None
    cores: CoresOpt = None
    numa: NumaOpt = None
    disk: DiskOpt = None
    model: ModelOpt = None
    tier: TierOpt = None
    engine: EngineOpt = None
    checkpoint: CheckpointOpt = None
    context: ContextOpt = None
    min_context: MinContextOpt = None
    concurrency: ConcurrencyOpt = None
    memory_fraction: FractionOpt = None
    batch_tokens: BatchOpt = None
    sequences: SequencesOpt = None
    dcp: DcpOpt = None
    kv_dtype: KvOpt = None
    text_only: TextOnlyOpt = None
    draft: DraftOpt = None
    goal: GoalOpt = None
    allow_tight: AllowTightOpt = None
    served_name: ServedNameOpt = None
    bind: BindOpt = None
    port: PortOpt = None
    revision: RevisionOpt = None
    model_path: ModelPathOpt = None
    head_address: HeadAddressOpt = None
    engine_arg: EngineArgOpt = None
    profiles: ProfilesOpt = None
    config: ConfigOpt = None

    def said(self) -> dict[str, Any]:
        """Return what was given, by field; a list that stayed empty was not."""
        every = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in every if value is not None and value != []}


def takes(
    fields: type[Any], name: str = "options"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes each field of the dataclass *fields* an option of a command.

    The command gets them together as its argument *name*. Typer reads a command's options from its
    signature, so the signature is what is made here.
    """
    hints = get_type_hints(fields, include_extras=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(fields)
        ]
        own = inspect.signature(command, eval_str=True).parameters
        every = [*shared, *(p for word, p in own.items() if word != name)]
        parameters = sorted(every, key=lambda parameter: parameter.kind)

        @wraps(command)
        def with_options(**given: Any) -> None:
            together = fields(**{word: given.pop(word) for word in hints})
            command(**{name: together}, **given)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate
