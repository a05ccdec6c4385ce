"""Seconds of one forward pass by cause: a roofline over a floor of latency.

A pass reads the weights it needs and the cache of its sequences from memory, multiplies, and
exchanges activations between ranks; beside that every layer has a cost that no bandwidth buys off
(kernel launches, small all-reduces). What is arithmetic comes from the model's config; what is not
is a parameter of `profiles/speed.yaml`, fitted by `bench/fit_speed.py` and named in
`catalog.fitted.SPEED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kimideploy.catalog.types import Architecture, EngineId, Format, KvDtype
from kimideploy.planning.memory import (
    kv_bytes_per_token,
    mlp_weights,
    replicated_weights,
    routed_weights,
    sharded_bytes,
    sharded_weights,
    stages,
)
from kimideploy.planning.types import Layout

#: bytes of one activation (bf16)
_ACTIVATION = 2
#: how sharply attention turns from one bound to the other
_SHARPNESS = 4.0
#: the NVLink the parameter `link.nvlink` is for, bytes per second; others are scaled by theirs
_LINK = {"nvlink": 900e9, "nvlink-bridge": 900e9, "xgmi": 896e9}
#: seconds of one message between two machines over a fast fabric; a guess
_HOP = 20e-6
#: rows of the tile INT4 kernels work on; fewer tokens leave part of it empty
_TILE = 16
#: generations whose MLA decoding runs on Triton (FACTS of vLLM's attention backends)
_TRITON = ("sm80", "sm86", "sm89", "sm120")
#: tokens of a prompt an engine reads in one pass, as our commands set it: the hybrid engine
#: streams its experts once a pass and takes large ones
CHUNK: Mapping[EngineId, int] = {
    "vllm": 8192,
    "sglang": 8192,
    "ktransformers": 32768,
    "llamacpp": 2048,
}

Parameters = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Machine:
    """What speed depends on: bytes and floating-point operations per second of one GPU."""

    engine: EngineId
    generation: str | None
    bandwidth: float
    flops: float
    link: str
    link_bandwidth: float | None
    nodes: int = 1
    #: NUMA nodes whose memory feeds experts on the CPU
    numa: int = 1


@dataclass(frozen=True, slots=True)
class Work:
    """What is served, and how it is laid out; `draft` tokens are guessed ahead of each step."""

    architecture: Architecture
    form: Format
    layout: Layout
    kv_dtype: KvDtype
    draft: int = 0
    #: share of the routed experts that live in host memory
    hosted: float = 0.0


def decode_step(
    work: Work, machine: Machine, p: Parameters, *, sequences: float, context: float
) -> dict[str, float]:
    """Seconds by cause until each of *sequences* has its next token(s), *context* tokens deep."""
    layout = work.layout
    tokens = max(sequences / (layout.dp * layout.pp), 1.0)
    a = work.architecture
    passes = _pass(work, machine, p, tokens=tokens * (1 + work.draft))
    if work.hosted:
        passes["host memory"] = _hosted(work, tokens, p) / (machine.numa * p["host.bandwidth"])
    whole = stages(a, 1)[0]
    alone = Layout(tp=layout.tp, dcp=layout.dcp)
    row = kv_bytes_per_token(a, alone, whole, work.kv_dtype)
    # a kernel reads the cache once for each block of heads, and again in part for drafted tokens
    blocks = -(-a.heads * layout.dcp // (layout.tp * _heads(machine)))
    again = blocks * (1 + work.draft) ** p["verify"]
    read = (
        again
        * tokens
        * context
        * row
        / (machine.bandwidth * _of(p, "attention", machine.generation))
    )
    serial = again * context / layout.dcp * a.layers * _of(p, "serial", machine.generation)
    passes["attention"] = float((read**_SHARPNESS + serial**_SHARPNESS) ** (1 / _SHARPNESS))
    if layout.dcp > 1:
        heads = a.heads / layout.tp * (layout.dcp - 1)
        values = heads * (2 * a.kv_lora_rank + a.qk_rope_head_dim)
        volume = tokens * (1 + work.draft) * values * _ACTIVATION * a.layers
        passes["links"] += volume / _link(machine, p)
        passes["latency"] += a.layers * p["dcp_latency"]
    if work.draft:
        passes["latency"] += work.draft * p["draft_layers"] * _latency(machine, p)
    passes["host"] = sequences * p["sequence"]
    return passes


def prefill_pass(
    work: Work, machine: Machine, p: Parameters, *, tokens: float, before: float = 0.0
) -> dict[str, float]:
    """Seconds by cause to read *tokens* of a prompt in one pass, *before* tokens already read."""
    a, layout = work.architecture, work.layout
    passes = _pass(work, machine, p, tokens=tokens)
    if work.hosted:
        ranks = layout.tp * layout.pp
        rate = 1 / (1 / (ranks * p["stream.gpu"]) + 1 / p["stream.host"])
        passes["host memory"] = _hosted(work, float("inf"), p) / rate
    pairs = tokens * (before + tokens / 2)
    head = a.qk_nope_head_dim + a.qk_rope_head_dim + a.v_head_dim
    flops = 2 * pairs * a.heads * head * a.layers
    passes["attention"] = flops / (layout.tp * layout.pp * machine.flops * p["prefill_attention"])
    return passes


def prefill_seconds(work: Work, machine: Machine, p: Parameters, prompt: float) -> float:
    """Seconds to read a prompt of *prompt* tokens, alone, in chunks."""
    seconds, done = 0.0, 0.0
    while done < prompt:
        tokens = min(CHUNK[machine.engine], prompt - done)
        seconds += sum(prefill_pass(work, machine, p, tokens=tokens, before=done).values())
        done += tokens
    return seconds


def prefill_rate(work: Work, machine: Machine, p: Parameters, prompt: float) -> float:
    """Input tokens per second of the deployment while it reads prompts of *prompt* tokens.

    Chunks are full, and pipeline stages and data-parallel groups work side by side.
    """
    chunk = CHUNK[machine.engine]
    full = prefill_pass(work, machine, p, tokens=chunk, before=max(prompt - chunk, 0) / 2)
    side_by_side = work.layout.dp * (1 if machine.engine == "llamacpp" else work.layout.pp)
    return side_by_side * chunk / sum(full.values())


def accepted(work: Work, p: Parameters) -> float:
    """Tokens a step yields: one, and the drafted ones that are accepted."""
    return 1 + work.draft * p["acceptance"] if work.draft else 1.0


def experts_hit(architecture: Architecture, tokens: float, alike: float) -> float:
    """Experts of a layer that at least one of *tokens* is routed to.

    Independent routing would hit E·(1-(1-k/E)^n); tokens of like texts are routed alike, which
    `alike` below 1 says: n tokens spread as n^alike independent ones do.
    """
    a = architecture
    miss = 1 - a.experts_per_token / a.experts
    return float(a.experts * (1 - miss ** (tokens**alike)))


def active_weights(architecture: Architecture) -> int:
    """Parameters one token is multiplied with (the embedding is looked up, not multiplied)."""
    a = architecture
    whole = stages(a, 1)[0]
    return (
        _routed_to(a)
        + sharded_weights(a, whole)
        + replicated_weights(a, whole)
        - a.vocabulary * a.hidden
    )


def _routed_to(a: Architecture) -> int:
    """Parameters of the routed experts that one token is multiplied with."""
    return routed_weights(a, stages(a, 1)[0].moe) * a.experts_per_token // a.experts


def _pass(work: Work, machine: Machine, p: Parameters, *, tokens: float) -> dict[str, float]:
    """Latency, weights, arithmetic and exchange of a pass over *tokens* a rank group."""
    a, form, layout = work.architecture, work.form, work.layout
    whole = stages(a, 1)[0]
    spread = layout.tp * layout.dp
    share = experts_hit(a, tokens * layout.dp, p["alike"]) / a.experts * (1 - work.hosted)
    experts = share * routed_weights(a, whole.moe) * form.expert_bytes / spread
    table = a.vocabulary * a.hidden * form.other_bytes  # embeddings: a pass reads few of them
    other = (sharded_bytes(a, form, whole) - table) / layout.tp
    other += replicated_weights(a, whole) * form.other_bytes
    small = p.get(f"small.{machine.generation}", 1.0) if tokens < _TILE else 1.0
    reading = experts / (machine.bandwidth * p["experts"] * small)
    computing = _products(work, machine, p) * tokens / (machine.flops * p["compute"])
    volume = 0.0
    if layout.tp > 1:
        # two all-reduces a layer; a ring moves 2·(n-1)/n of the data over each link
        volume = 4 * a.layers * (layout.tp - 1) / layout.tp * tokens * a.hidden * _ACTIVATION
    return {
        "latency": a.layers * _latency(machine, p)
        + (machine.nodes - 1) * _HOP * (1 if layout.pp > 1 else 2 * a.layers),
        "weights": other / (machine.bandwidth * p["weights"]),
        # the same matrices are read and multiplied at once: the slower of both shows
        "experts": max(reading, computing),
        "links": volume / _link(machine, p) if volume else 0.0,
    }


def _products(work: Work, machine: Machine, p: Parameters) -> float:
    """Floating-point operations of a rank for one token, as many as bf16 units take as long for.

    FP4 units multiply what is packed several times as fast; some kernels unpack slowly.
    """
    a = work.architecture
    whole = stages(a, 1)[0]
    active = active_weights(a)
    packed = _routed_to(a)
    if work.form.mlp_bytes == work.form.expert_bytes:
        packed += mlp_weights(a, whole)
    how = work.form.computes
    rate = 1.0 if how == "bf16" else _of(p, how, machine.generation)
    return 2 * (active - packed + packed / rate) / work.layout.tp


def _hosted(work: Work, tokens: float, p: Parameters) -> float:
    """Bytes of experts in host memory that *tokens* are routed to."""
    a = work.architecture
    whole = routed_weights(a, stages(a, 1)[0].moe) * work.form.expert_bytes
    share = experts_hit(a, tokens, p["alike"]) / a.experts
    return work.hosted * share * whole


def _heads(machine: Machine) -> int:
    """Heads that one pass over the cache serves: 16 in vLLM's Triton MLA decode kernel
    (v1/attention/ops/triton_decode_attention.py, BLOCK_H), 64 in FlashMLA and its like."""
    return 16 if machine.generation in _TRITON else 64


def _latency(machine: Machine, p: Parameters) -> float:
    return _of(p, "latency", machine.generation) * p.get(f"latency.{machine.engine}", 1.0)


def _link(machine: Machine, p: Parameters) -> float:
    """Bytes per second a rank exchanges with the others."""
    if machine.link not in _LINK or machine.link_bandwidth is None:
        return p["link.pcie"]
    kind = "xgmi" if machine.link == "xgmi" else "nvlink"
    return p[f"link.{kind}"] * machine.link_bandwidth / _LINK[machine.link]


def _of(p: Parameters, name: str, generation: str | None) -> float:
    """The parameter of a GPU generation: its factor on the one for all, where it has one."""
    return p[name] * p.get(f"{name}.{generation}", 1.0)
