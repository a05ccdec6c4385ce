"""GPU memory beside weights and KV cache, by cause: what an engine takes to run at all.

vLLM profiles a run and takes this from inside its fraction; SGLang keeps it beside the fraction.
What is arithmetic comes from the config and the engine's source, the rest are parameters of
`profiles/overhead.yaml`, fitted to startup logs by `bench/fit_memory.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kimideploy.catalog.types import Architecture, EngineId
from kimideploy.planning.types import Layout, Share

RUNTIME = "runtime"
ACTIVATIONS = "activations"
GRAPHS = "CUDA graphs"
DRAFT = "draft model"
#: causes that are neither weights of the model nor its cache
CAUSES = (RUNTIME, ACTIVATIONS, GRAPHS, DRAFT)

_ACTIVATION = 2
_MIB = 1 << 20
#: tokens of earlier context vLLM unpacks at once while it reads a prompt
#: (MLACommonMetadataBuilder.determine_chunked_prefill_workspace_size)
_WORKSPACE = 64 * 1024
#: cards with more than this keep SGLang's least reserve
_LARGE = 60 * 1024 * _MIB
#: largest batch vLLM captures a graph for, unless sequences ask for less (config/vllm.py)
_CAPTURED = 512
_CAPTURED_SM100 = 1024
#: tokens a llama.cpp batch computes at once, its default
_UBATCH = 512

Parameters = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a launch tells the engine about memory; `estimated`: vLLM sets graphs aside itself."""

    fraction: float
    batch_tokens: int
    sequences: int
    estimated: bool = True
    #: largest batch a graph is captured for; None: the engine's own
    captured: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What overhead depends on beside settings; `link` as profiles call it, `draft` in tokens."""

    engine: EngineId
    architecture: Architecture
    layout: Layout
    generation: str | None
    link: str
    capacity: int
    draft: int = 0


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes on one GPU `inside` the engine's fraction, and those that must fit `outside` of it."""

    inside: tuple[Share, ...]
    outside: tuple[Share, ...] = ()

    @property
    def taken(self) -> int:
        """Bytes inside the fraction."""
        return sum(share.bytes for share in self.inside)

    @property
    def left(self) -> int:
        """Bytes that must stay free outside the fraction."""
        return sum(share.bytes for share in self.outside)


def overhead(situation: Situation, settings: Settings, p: Parameters) -> Overhead:
    """Return what the engine of *situation* takes under *settings*."""
    match situation.engine:
        case "vllm":
            return _vllm(situation, settings, p)
        case "sglang":
            return _sglang(situation, settings, p)
        case "ktransformers":
            return _ktransformers(situation, settings, p)
        case "llamacpp":
            return _llamacpp(situation, p)


def captured_sizes(situation: Situation, settings: Settings) -> int:
    """Batch sizes vLLM captures graphs for: 1, 2, 4, every 8th to 256, every 16th beyond."""
    most = settings.captured
    if most is None:
        default = _CAPTURED_SM100 if _sm100(situation.generation) else _CAPTURED
        most = min(settings.sequences * (1 + situation.draft) * 2, default)
    return sum(size <= most for size in (1, 2, 4)) + min(most, 255) // 8 + max(0, most - 240) // 16


def _vllm(s: Situation, settings: Settings, p: Parameters) -> Overhead:
    a = s.architecture
    row = a.hidden * _ACTIVATION
    heads = -(-a.heads // s.layout.tp) * (a.qk_nope_head_dim + a.v_head_dim)
    forward = settings.batch_tokens * row * (a.experts_per_token + p["rows"])
    forward += _WORKSPACE * heads * _ACTIVATION
    sampling = settings.sequences * (row + a.vocabulary * p["logit"])
    note = f"a pass of {settings.batch_tokens:,} tokens"
    if sampling > forward:
        note = f"sampling for {settings.sequences:,} sequences"
    # what vLLM sets aside there is several times what it then captures
    graph = p["graph"] * (p.get(f"graph.{s.generation}", 1.0) if settings.estimated else 1.0)
    graph *= p["graph.dcp"] if s.layout.dcp > 1 else 1.0
    graph *= p["graph.draft"] if s.draft else 1.0
    sizes = captured_sizes(s, settings)
    graphs = Share(GRAPHS, int(graph * sizes), f"{sizes} batch sizes")
    inside = (
        _runtime(s, p),
        Share(ACTIVATIONS, int(max(forward, sampling)), note),
        *_draft(s, p),
    )
    lazy = Share(
        "allocated later", int(p["lazy"]), "NCCL channels and workspaces after the profile"
    )
    if settings.estimated:
        return Overhead((*inside, graphs), (lazy,))
    return Overhead(inside, (graphs, lazy))


def _sglang(s: Situation, settings: Settings, p: Parameters) -> Overhead:
    ranks = s.layout.tp * s.layout.pp
    reserve = 512 * _MIB + ranks / 8 * 1024 * _MIB
    reserve += max(settings.batch_tokens, 2048) * p["sglang.token"]
    reserve += min(settings.sequences, 512) * p["sglang.graph"]
    if s.capacity > _LARGE:
        reserve = max(reserve, p["sglang.least"])
    reserved = Share(ACTIVATIONS, int(reserve), "and graphs: SGLang's own reserve")
    return Overhead((_runtime(s, p), *_draft(s, p)[:1]), (reserved,))


def _ktransformers(s: Situation, settings: Settings, p: Parameters) -> Overhead:
    a = s.architecture
    chunk = settings.batch_tokens * a.hidden * _ACTIVATION * (a.experts_per_token + p["kt.rows"])
    note = f"a chunk of {settings.batch_tokens:,} tokens"
    return Overhead((_runtime(s, p), Share(ACTIVATIONS, int(chunk), note)))


def _llamacpp(s: Situation, p: Parameters) -> Overhead:
    logits = _UBATCH * s.architecture.vocabulary * 4
    return Overhead(
        (
            Share(RUNTIME, int(p["llamacpp.runtime"]), "CUDA context and cuBLAS", guess=True),
            Share(ACTIVATIONS, logits, f"logits of a batch of {_UBATCH}"),
            Share("left free", int(p["llamacpp.left"]), "as llama-server itself would"),
        )
    )


def _runtime(s: Situation, p: Parameters) -> Share:
    kind = {"nvlink-bridge": "pcie"}.get(s.link, s.link)
    note = "GPU context, kernels, communication buffers"
    return Share(RUNTIME, int(p[f"runtime.{kind}"]), note)


def _draft(s: Situation, p: Parameters) -> tuple[Share, ...]:
    if not s.draft:
        return ()
    weights = int(p["draft.weights"]) // s.layout.tp
    return (
        Share(DRAFT, weights, "its weights, split over the ranks"),
        Share(DRAFT, int(p["draft.work"]), "its activations and buffers"),
    )


def _sm100(generation: str | None) -> bool:
    return generation in ("sm100", "sm103")
