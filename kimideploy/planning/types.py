"""Request, Inventory, Candidate, Fit, Rejection, Plan, NoFit: the planner's values.

Bytes are ints. What is written to JSON is versioned by `PLAN_SCHEMA`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kimideploy.catalog.types import EngineId, Gpu, KvDtype, WeightFormat
from kimideploy.facts.types import Strict
from kimideploy.planning.estimates import Speed

PLAN_SCHEMA = "kimideploy.plan/1"
Goal = Literal["balanced", "latency", "throughput", "context", "cost"]


class Request(Strict, frozen=True):
    """What the operator wants; None lets the planner choose."""

    model: str = "kimi-k2.7-code"
    tier: str | None = None
    engine: EngineId | None = None
    #: a checkpoint id of the model, e.g. int4 or gguf-ud-q2_k_xl
    checkpoint: str | None = None
    #: tokens one request may take; None: the most that fits, up to the model's own limit
    context: int | None = None
    #: the least context that makes sense; a forced-thinking model needs it
    min_context: int | None = None
    #: requests of the full context that must fit into the KV cache at once
    concurrency: int = 1
    #: what the engine is told about memory; None: the planner chooses
    memory_fraction: float | None = None
    batch_tokens: int | None = None
    sequences: int | None = None
    #: decode context parallelism of this size and no other
    dcp: int | None = None
    kv_dtype: KvDtype | None = None
    text_only: bool = False
    draft: bool = False
    goal: Goal = "balanced"
    #: accept a plan that fits only if the engine's overhead is at the low end of what was seen
    allow_tight: bool = False
    served_name: str | None = None
    bind: str = "127.0.0.1"
    port: int | None = None
    revision: str | None = None
    #: the folder of the weights on the node; None: the hub's repo id
    model_path: str | None = None
    #: the first node's address, as the other nodes reach it
    head_address: str | None = None
    engine_args: tuple[str, ...] = ()


class Node(Strict, frozen=True):
    """One OS image with GPUs of one kind. Sizes are bytes, None is unknown."""

    name: str
    #: GPU profile id; None: no GPU
    gpu: str | None
    gpus: int
    #: what an engine sees as one card's total
    gpu_memory: int
    generation: str | None
    #: largest group of GPUs that reach each other over NVLink/xGMI; 1 if over PCIe only
    domain: int
    ram: int | None = None
    cores: int | None = None
    numa: int | None = None
    cpu_flags: tuple[str, ...] | None = None
    disk_free: int | None = None
    architecture: str | None = None
    address: str | None = None


class Inventory(Strict, frozen=True):
    """The nodes a plan may use, and what was left out of account, in words."""

    nodes: tuple[Node, ...]
    notes: tuple[str, ...] = ()
    #: cards that no profile knows, as the driver describes them
    strangers: tuple[Gpu, ...] = ()


class Layout(Strict, frozen=True):
    """tp, pp, dp, dcp: group sizes. ep: experts spread over all tp*dp ranks."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    dcp: int = 1
    ep: bool = False

    @property
    def gpus(self) -> int:
        """GPUs the layout uses over all nodes."""
        return self.tp * self.pp * self.dp

    def __str__(self) -> str:
        words = [f"TP{self.tp}"] if self.tp > 1 or self.pp == self.dp == 1 else []
        words += [f"PP{self.pp}"] if self.pp > 1 else []
        words += [f"DP{self.dp}"] if self.dp > 1 else []
        words += [f"EP{self.tp * self.dp}"] if self.ep else []
        words += [f"DCP{self.dcp}"] if self.dcp > 1 else []
        return "×".join(words)


class Offload(Strict, frozen=True):
    """Which routed experts live where when they do not all live on GPUs."""

    #: KTransformers: experts of every layer that stay on the GPUs
    gpu_experts: int | None = None
    #: llama.cpp: per GPU, the layers whose experts it holds; the rest stay in host memory
    gpu_layers: tuple[tuple[int, ...], ...] | None = None
    cpu_layers: int = 0
    threads: int | None = None
    numa: int | None = None


class Candidate(Strict, frozen=True):
    """checkpoint × engine × layout × KV dtype on some nodes of one kind."""

    tier: str
    checkpoint: str
    format: WeightFormat
    engine: EngineId
    layout: Layout
    kv_dtype: KvDtype
    #: GPU profile id, None on a node without GPUs
    gpu: str | None
    nodes: int
    gpus_per_node: int
    text_only: bool = False
    draft: str | None = None
    offload: Offload | None = None

    @property
    def label(self) -> str:
        """One line a person recognises: checkpoint, engine, layout, KV dtype."""
        each = f"{self.gpus_per_node}×{self.gpu}" if self.gpu is not None else "CPU"
        where = f"{self.nodes}×{each}" if self.nodes > 1 else each
        return f"{self.checkpoint} · {self.engine} · {where} {self.layout} · KV {self.kv_dtype}"


class Share(Strict, frozen=True):
    """Bytes with a cause; `guess` when nobody measured or stated them."""

    cause: str
    bytes: int
    note: str | None = None
    guess: bool = False


class Fit(Strict, frozen=True):
    """Bytes on the fullest GPU, by cause; they sum to `capacity` when it fits.

    `short` is what is missing for `context` tokens × one request (0 when it fits).
    """

    verdict: Literal["yes", "tight", "no"]
    capacity: int
    #: bytes of it the engine may fill
    budget: int
    #: share of the card the engine is told to fill
    memory_fraction: float
    shares: tuple[Share, ...]
    #: bytes of KV cache one token takes on that GPU
    kv_bytes_per_token: int
    #: tokens the cache holds over all ranks
    kv_tokens: int
    #: the context the launch asks for
    context: int
    max_concurrency: float
    short: int = 0
    #: the cache if the overhead is at the high and the low end of what was seen
    kv_tokens_low: int | None = None
    kv_tokens_high: int | None = None
    #: tokens of one pass and sequences at once that the engine is told
    batch_tokens: int | None = None
    sequences: int | None = None
    #: vLLM takes the memory of CUDA graphs from inside its fraction
    graphs_set_aside: bool | None = None
    #: what must fit beside the fraction, by cause
    outside: tuple[Share, ...] = ()
    #: why these settings, a sentence each
    chosen: tuple[str, ...] = ()
    #: host memory by cause, where experts stay there; their sum and what the node has
    ram: tuple[Share, ...] = ()
    ram_capacity: int | None = None

    def of(self, cause: str) -> int:
        """Bytes of one cause, 0 if it takes none."""
        return sum(share.bytes for share in self.shares if share.cause == cause)


class WayOut(Strict, frozen=True):
    """A change that would make it fit. `proved`: the planner ran it and it does."""

    change: str
    flags: tuple[str, ...] = ()
    proved: bool = False


class Rejection(Strict, frozen=True):
    """A candidate that was not taken: the rule, its numbers, the nearest way out."""

    candidate: Candidate
    rule: str
    reason: str
    need: int | None = None
    have: int | None = None
    way_out: str | None = None
    link: str | None = None


class Notice(Strict, frozen=True):
    """A warning the operator should read before paying."""

    code: str
    text: str
    link: str | None = None


class Secret(Strict, frozen=True):
    """A secret by reference: the environment variable it goes to and the file that holds it."""

    variable: str
    file: str


class Launch(Strict, frozen=True):
    """What one node runs: a tuple of words from here to execve."""

    node: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    #: where this node's endpoint answers; headless nodes have none
    host: str
    port: int
    headless: bool = False
    secrets: tuple[Secret, ...] = ()


class CodePin(Strict, frozen=True):
    """A file of code in the weights' repository, and the sha256 of its bytes."""

    path: str
    sha256: str


class Pins(Strict, frozen=True):
    """What a later run must use to get the same thing."""

    repo: str | None
    #: 40 hex digits; None: the profile knows no revision, the pull resolves and records it
    revision: str | None
    engine_version: str
    image: str | None
    requirements: tuple[str, ...]
    profiles: str
    kimideploy: str
    #: code the engine will run from the repository; empty: none, or nobody has looked yet
    code: tuple[CodePin, ...] = ()
    #: the commit of the draft model, where there is one
    draft: str | None = None


class Local(Strict, frozen=True):
    """Weights that were pulled: where the engine finds them on its node, and how it reads them."""

    #: the folder, or the first part of a GGUF
    path: str
    #: the folder of the draft model
    draft: str | None = None
    #: the file system is read better in large pieces, ahead of what maps it
    prefetch: bool = False
    #: how long reading them takes at the rate that was measured
    seconds: int | None = None


class Summed(Strict, frozen=True):
    """The weights of a plan's fullest GPU by the checkpoint's own headers, and as counted. Bytes.

    `size` is of all tensors. `counted` is None where the plan's shares hold no weights by cause.
    """

    place: str
    revision: str | None
    tensors: int
    size: int
    fullest: int
    counted: int | None = None


class Plan(Strict, frozen=True, tag_field="decision", tag="plan"):
    """The decision: what to run, why, what it takes, what was rejected, every pin."""

    request: Request
    inventory: Inventory
    candidate: Candidate
    fit: Fit
    why: tuple[str, ...]
    pins: Pins
    served_name: str
    #: how many copies of this plan the inventory holds
    copies: int
    launches: tuple[Launch, ...] = ()
    warnings: tuple[Notice, ...] = ()
    #: how fast it is predicted to be; None where nothing is known of the GPU's speed
    speed: Speed | None = None
    #: the weights summed tensor by tensor, where that was asked for
    summed: Summed | None = None
    #: None: a folder the request names, or the engine fetches them by itself
    local: Local | None = None
    #: candidates that fit too, best first
    alternatives: tuple[Candidate, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    schema: str = PLAN_SCHEMA


class NoFit(Strict, frozen=True, tag_field="decision", tag="no-fit"):
    """Nothing fits: a result. What came nearest, every rejection, the ways out."""

    request: Request
    inventory: Inventory
    reason: str
    nearest: Rejection | None
    ways_out: tuple[WayOut, ...]
    fit: Fit | None = None
    rejected: tuple[Rejection, ...] = ()
    schema: str = PLAN_SCHEMA


Decision = Plan | NoFit


def encode(value: msgspec.Struct) -> bytes:
    """Return *value* as indented JSON with a trailing newline, the same bytes every time."""
    # Why the hook: Bytes of a profile is a kind of int.
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=int), indent=2) + b"\n"
