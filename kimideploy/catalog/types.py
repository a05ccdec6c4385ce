"""The Catalog: what `profiles/` says, as frozen values. Every number has a source and a date.

A struct that holds numbers carries `source`: a key of the file's `sources:` table, or the
nearest one above it. `guess: true` marks what nobody measured or stated. Absent is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from kimideploy.quantities import Bytes

if TYPE_CHECKING:
    from kimideploy.catalog.clients import Client
    from kimideploy.catalog.failures import Failure
    from kimideploy.catalog.fitted import OverheadFile, SpeedFile
    from kimideploy.catalog.measurements import Measurement
    from kimideploy.catalog.prices import PriceFile
    from kimideploy.catalog.thresholds import Thresholds

Support = Literal["verified", "works", "unsupported", "broken"]
"""verified: someone ran it · works: stated · unsupported: refused · broken: runs, wrong output"""
WeightFormat = Literal["int4", "nvfp4", "mxfp4", "fp8", "bf16", "gguf"]
KvDtype = Literal["bf16", "fp8", "q8_0"]
EngineId = Literal["vllm", "sglang", "ktransformers", "llamacpp"]
Count = Annotated[int, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything read from `profiles/`."""


class Source(Profile, frozen=True, kw_only=True):
    """Where a number comes from: an address or a named log, and the day it was said."""

    url: str
    date: str
    note: str | None = None


class Claim(Profile, frozen=True, kw_only=True):
    """Whether something works, with the reason and a link."""

    support: Support
    why: str | None = None
    link: str | None = None
    source: str | None = None


# --- model architectures (profiles/architectures.yaml) and weight formats -----------------


class Architecture(Profile, frozen=True, kw_only=True):
    """The shape of a model, as its config.json states it."""

    source: str
    layers: Count
    dense_layers: Annotated[int, Meta(ge=0)]
    hidden: Count
    heads: Count
    experts: Count
    experts_per_token: Count
    shared_experts: Annotated[int, Meta(ge=0)]
    expert_intermediate: Count
    dense_intermediate: Count
    q_lora_rank: Count
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count
    vocabulary: Count
    mtp_layers: Annotated[int, Meta(ge=0)]


class Format(Profile, frozen=True, kw_only=True):
    """What one weight takes on disk, in bytes: of a routed expert, of the MLPs that every token
    passes (shared experts and dense layers), and of all else."""

    source: str
    expert_bytes: Annotated[float, Meta(gt=0)]
    mlp_bytes: Annotated[float, Meta(gt=0)]
    other_bytes: Annotated[float, Meta(gt=0)]
    #: what multiplies its packed weights: int4 kernels unpack them to bf16, fp4 units need not
    computes: Literal["bf16", "int4", "fp4"] = "bf16"
    note: str | None = None


# --- models ------------------------------------------------------------------------------


class Thinking(Profile, frozen=True, kw_only=True):
    """How a model thinks: `forced` cannot be switched off, `preserve` keeps every past turn."""

    mode: Literal["forced", "always", "switchable", "none"]
    preserve: Literal["forced", "optional", "none"]
    source: str
    note: str | None = None


class Sampling(Profile, frozen=True, kw_only=True):
    """What the vendor samples the model with."""

    temperature: float
    top_p: float | None = None
    source: str


class Vision(Profile, frozen=True, kw_only=True):
    """The vision tower; `bytes` on every rank when the encoder runs data-parallel."""

    bytes: Bytes
    source: str
    projector_file: str | None = None


class Checkpoint(Profile, frozen=True, kw_only=True):
    """One published set of weight files. `exists` false: a fact worth telling (no bf16 export)."""

    id: str
    format: WeightFormat
    source: str
    exists: bool = True
    official: bool = False
    repo: str | None = None
    revision: str | None = None
    #: bytes of all weight files on disk
    size: Bytes | None = None
    #: safetensors shards or GGUF parts
    files: Count | None = None
    #: glob of the weight files inside the repo
    pattern: str | None = None
    engines: tuple[EngineId, ...] = ()
    #: GGUF: the quant's name and nominal bits of its experts; the bytes beside the experts
    quant: str | None = None
    bits: Count | None = None
    lossless: bool = False
    non_expert: Bytes | None = None
    guess: bool = False
    note: str | None = None


class Draft(Profile, frozen=True, kw_only=True):
    """An EAGLE3 draft model for speculative decoding."""

    repo: str
    method: Literal["eagle3"]
    tokens: Count
    engines: tuple[EngineId, ...]
    source: str
    note: str | None = None
    guess: bool = False


class EngineFloor(Profile, frozen=True, kw_only=True):
    """The oldest engine version that serves the model."""

    minimum: str
    source: str
    note: str | None = None


#: tokens, a guess where a model's profile says nothing: thinking comes first, and SGLang's cookbook
#: asks for as many (https://docs.sglang.io cookbook, Kimi-K2.7-Code)
_ANSWER = 32_768


class Model(Profile, frozen=True, kw_only=True):
    """An architecture plus its serving semantics."""

    id: str
    name: str
    released: str
    license: str
    source: str
    sources: dict[str, Source]
    aliases: tuple[str, ...] = ()
    architecture: str
    context: Count
    #: what the planner asks for when nobody says: a thinking model needs room to think
    min_context: Count
    thinking: Thinking
    sampling: Sampling
    vision: Vision | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    #: shape of a tool-call id in the history, e.g. functions.{name}:{index}
    tool_id: str
    max_tokens_default: Count | None = None
    disk_free: Bytes | None = None
    engines: dict[EngineId, EngineFloor] = {}
    checkpoints: tuple[Checkpoint, ...]
    drafts: tuple[Draft, ...] = ()

    @property
    def answer_tokens(self) -> int:
        """Tokens of an answer that a client should allow."""
        return int(self.max_tokens_default or _ANSWER)


# --- GPUs --------------------------------------------------------------------------------


class Generation(Profile, frozen=True, kw_only=True):
    """What runs on one GPU architecture: sm80, sm90, sm100, sm120, gfx942 …"""

    id: str
    name: str
    vendor: Literal["nvidia", "amd"]
    #: "8.0" as NVML prints it, or "gfx942"
    compute_capability: str
    formats: dict[WeightFormat, Claim]
    kv: dict[KvDtype, Claim]
    #: further named features: dcp, eagle3, ktransformers, expert-parallel …
    features: dict[str, Claim] = {}
    #: per engine, e.g. vllm attention backend to pass
    attention: dict[EngineId, str] = {}


class GpuMemory(Profile, frozen=True, kw_only=True):
    """`usable` is what an engine sees as the card's total, measured where a source says so."""

    usable: Bytes
    source: str
    guess: bool = False
    note: str | None = None


class Bandwidth(Profile, frozen=True, kw_only=True):
    """Bytes per second of the GPU's own memory."""

    bytes_per_second: Bytes
    source: str
    guess: bool = False


class Compute(Profile, frozen=True, kw_only=True):
    """10¹² floating-point operations per second: dense bf16 products summed in fp32."""

    bf16_teraflops: Annotated[float, Meta(gt=0)]
    source: str
    guess: bool = False


class Interconnect(Profile, frozen=True, kw_only=True):
    """How the GPUs of one node reach each other; `domain` is the largest all-to-all group."""

    kind: Literal["nvlink", "nvlink-bridge", "pcie", "xgmi"]
    domain: Count
    source: str
    bytes_per_second: Bytes | None = None
    guess: bool = False
    note: str | None = None


class Gpu(Profile, frozen=True, kw_only=True):
    """One card, as engines see it."""

    id: str
    name: str
    generation: str
    source: str
    sources: dict[str, Source]
    #: words of the --hardware grammar, compared without case and punctuation
    aliases: tuple[str, ...]
    #: regular expressions for the name as NVML or rocm-smi prints it
    driver_names: tuple[str, ...]
    memory: GpuMemory
    bandwidth: Bandwidth | None = None
    compute: Compute | None = None
    interconnect: Interconnect
    #: 8 on an HGX board: what a node of these cards holds at most, as sold
    per_node: Count | None = None
    note: str | None = None


# --- engines -----------------------------------------------------------------------------


class Denied(Profile, frozen=True, kw_only=True):
    """An engine version that must not be used; `generations`/`architecture` narrow it."""

    version: str
    why: str
    link: str
    generations: tuple[str, ...] = ()
    architecture: str | None = None


class Versions(Profile, frozen=True, kw_only=True):
    """`pinned` is what a plan installs: the version whose own parser judged our flags."""

    pinned: str
    minimum: str
    source: str
    denied: tuple[Denied, ...] = ()
    guess: bool = False
    note: str | None = None


class Wheel(Profile, frozen=True, kw_only=True):
    """What the wheels of the pinned version need."""

    #: the least, of C library and Python, and the newest Python
    glibc: str
    python: str
    python_most: str
    architectures: tuple[str, ...]
    #: what the PyTorch it asks for was built with
    cuda: str
    source: str


class Install(Profile, frozen=True, kw_only=True):
    """Requirements and options for `uv pip install`, per vendor; `imports` must succeed then."""

    requirements: dict[Literal["nvidia", "amd"], tuple[str, ...]]
    source: str
    options: dict[Literal["nvidia", "amd"], tuple[str, ...]] = {}
    imports: tuple[str, ...] = ()
    wheel: Wheel | None = None
    note: str | None = None


class MemoryPolicy(Profile, frozen=True, kw_only=True):
    """`fraction`: share of the card the engine may fill, the default and the highest we choose.

    `outside` true (SGLang): activations and graphs live in the remaining 1 - fraction; false
    (vLLM): they are taken from inside the fraction. How much they are: `overhead.yaml`.
    """

    fraction: Share
    fraction_max: Share
    #: the highest fraction on AMD's GPUs, where it is another
    fraction_amd: Share | None = None
    outside: bool
    source: str
    #: the context an engine that holds experts in host memory is given when none is asked for:
    #: more cache there means fewer experts on the GPUs
    context_default: Count | None = None


class Flag(Profile, frozen=True, kw_only=True):
    """The engine's word for a concept; `since` the version that knows it."""

    word: str
    since: str | None = None


class Metrics(Profile, frozen=True, kw_only=True):
    """Where the engine counts, and what it calls things: the first name that it prints counts."""

    path: str
    #: requests that are decoded, and that wait
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    #: the share of the KV cache in use, 0 to 1
    cache: tuple[str, ...]
    #: tokens ever generated
    made: tuple[str, ...]
    source: str
    note: str | None = None


class LogPatterns(Profile, frozen=True, kw_only=True):
    """Regular expressions over the engine's log: progress stages in order."""

    stages: tuple[LogStage, ...]
    source: str


class LogStage(Profile, frozen=True, kw_only=True):
    """A stage the log shows; named groups `done` and `total` give progress."""

    stage: str
    pattern: str


class Engine(Profile, frozen=True, kw_only=True):
    """An inference server: its versions, words, memory and log."""

    id: EngineId
    name: str
    source: str
    sources: dict[str, Source]
    #: the first words of the command
    command: tuple[str, ...]
    #: program names by which the probe and preflight find it
    executables: tuple[str, ...]
    port: Annotated[int, Meta(ge=1, le=65535)]
    health: str
    ready: str
    metrics: Metrics
    #: the message field that carries the reasoning
    reasoning_field: Literal["reasoning", "reasoning_content"]
    formats: tuple[WeightFormat, ...]
    vendors: tuple[Literal["nvidia", "amd"], ...]
    layouts: tuple[Literal["tp", "pp", "dp", "ep", "dcp"], ...]
    kv: tuple[KvDtype, ...]
    multi_node: bool
    versions: Versions
    install: Install
    images: dict[str, str] = {}
    memory: MemoryPolicy
    flags: dict[str, Flag]
    log: LogPatterns


# --- tiers -------------------------------------------------------------------------------


class Tier(Profile, frozen=True, kw_only=True):
    """A row users think in. A candidate belongs to the first tier (in file order) that matches.

    Every condition that is present must hold; `gpus` and `generations` are profile ids.
    """

    id: str
    title: str
    #: smaller is preferred when nothing else decides (quality of the answers, then speed)
    rank: int
    formats: tuple[WeightFormat, ...]
    engines: tuple[EngineId, ...] = ()
    gpus: tuple[str, ...] = ()
    generations: tuple[str, ...] = ()
    #: (fewest, most) nodes
    nodes: tuple[int, int] | None = None
    #: (fewest, most) nominal bits of a GGUF quant
    bits: tuple[int, int] | None = None
    lossless: bool | None = None
    note: str | None = None


class When(Profile, frozen=True, kw_only=True):
    """Which plans a notice is for: every condition that is present must hold."""

    models: tuple[str, ...] = ()
    formats: tuple[WeightFormat, ...] = ()
    engines: tuple[EngineId, ...] = ()
    gpus: tuple[str, ...] = ()
    generations: tuple[str, ...] = ()
    vendors: tuple[Literal["nvidia", "amd"], ...] = ()
    interconnects: tuple[str, ...] = ()
    kv: tuple[KvDtype, ...] = ()
    #: at least this many
    tp: int | None = None
    pp: int | None = None
    dcp: int | None = None
    dp: int | None = None
    nodes: int | None = None
    #: at most this much TP
    tp_most: int | None = None
    ep: bool | None = None
    draft: bool | None = None
    #: experts in host memory
    offload: bool | None = None


class NoticeRule(Profile, frozen=True, kw_only=True):
    """A warning that plans of some kind carry, with where it was seen."""

    code: str
    when: When
    text: str
    link: str
    date: str


class RulesOfThumb(Profile, frozen=True, kw_only=True):
    """From where on self-hosting is said to be worth a thought; shown, never decided by."""

    tokens_per_day: Annotated[float, Meta(gt=0)]
    usd_per_month: Annotated[float, Meta(gt=0)]
    source: str


class Benchmark(Profile, frozen=True, kw_only=True):
    """A published figure of a model; `independent` when others than its vendor ran it."""

    model: str
    name: str
    percent: Annotated[float, Meta(ge=0, le=100)]
    independent: bool
    source: str


class AdviceFacts(Profile, frozen=True, kw_only=True):
    """`advice.yaml`: what advice is held against; `hardware` are the machines tried by default."""

    sources: dict[str, Source]
    rules_of_thumb: RulesOfThumb
    benchmarks: tuple[Benchmark, ...]
    hardware: tuple[str, ...]


class Catalog(msgspec.Struct, frozen=True):
    """All profiles, by id, and the sha256 over their canonical text (a plan pins it)."""

    architectures: dict[str, Architecture]
    formats: dict[WeightFormat, Format]
    models: dict[str, Model]
    generations: dict[str, Generation]
    gpus: dict[str, Gpu]
    engines: dict[EngineId, Engine]
    tiers: tuple[Tier, ...]
    notices: tuple[NoticeRule, ...]
    clients: tuple[Client, ...]
    #: known failures; of several that fit a log, the first one is the cause
    failures: tuple[Failure, ...]
    thresholds: Thresholds
    advice: AdviceFacts
    prices: PriceFile
    speed: SpeedFile
    overhead: OverheadFile
    measurements: tuple[Measurement, ...]
    #: published speeds that no parameter was fitted to
    unfitted: tuple[Measurement, ...]
    digest: str
