"""Fit for engines that keep routed experts in host memory: KTransformers and llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass

from kimideploy.planning.fit import HEADROOM, KV, context_for, need
from kimideploy.planning.memory import (
    kv_bytes_per_token,
    routed_weights,
    stages,
    weight_shares,
)
from kimideploy.planning.overhead import Settings, overhead
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Fit, Layout, Offload, Share

#: host memory beside the experts: FACTS of the vendors, RAM + VRAM >= quant + KV + about 10 GB
#: (https://unsloth.ai/docs/models/kimi-k2.7-code)
GGUF_RESERVE = 10_000_000_000
#: runtime and buffers of KTransformers beside the experts, a guess between its documents' 600 GB
#: for the INT4 checkpoint and the experts' own bytes
HYBRID_RESERVE = 20_000_000_000
#: tokens of a prompt that are read while the experts stream through once, as in the vendor's
#: command, and what is tried where memory is short
_CHUNKS = (32_658, 8_192, 2_048)


def fit_hybrid(subject: Subject) -> tuple[Fit, Offload]:
    """Return the Fit of KTransformers: some experts of every layer on the GPUs, the rest in RAM.

    Each GPU also holds room for one layer's experts that prefill streams through it
    (`--kt-gpu-prefill-token-threshold`, kt-kernel README: about 9 GB at TP1).
    """
    chunks = _CHUNKS if subject.request.batch_tokens is None else (subject.request.batch_tokens,)
    for chunk in chunks:
        fit, offload = _hybrid(subject, chunk)
        if fit.verdict != "no" or chunk == chunks[-1]:
            return fit, offload
    raise AssertionError("the last chunk is always taken")


def _hybrid(subject: Subject, chunk: int) -> tuple[Fit, Offload]:
    a, form, node = subject.architecture, subject.form, subject.node
    if form is None:
        raise AssertionError("KTransformers loads a format with known weight sizes")
    policy = subject.engine.memory
    stage = stages(a, 1)[0]
    tp = subject.layout.tp
    weights = weight_shares(a, form, subject.layout, stage, vision=subject.vision, routed=False)
    layer = int(routed_weights(a, 1) * form.expert_bytes)
    expert = int(routed_weights(a, stage.moe) * form.expert_bytes) // a.experts
    fraction = subject.request.memory_fraction or policy.fraction
    settings = Settings(fraction, chunk, 1)
    beside = overhead(subject.situation, settings, subject.overheads)
    streaming = Share("expert streaming", -(-layer // tp), "one layer's experts during prefill")
    per_token = kv_bytes_per_token(a, subject.layout, stage, subject.kv_dtype)
    budget = int(node.gpu_memory * fraction)
    fixed = beside.taken + streaming.bytes + sum(share.bytes for share in weights)
    # Why: one expert must stay on the GPUs, none at all fails to start
    # (https://github.com/kvcache-ai/ktransformers/issues/1835).
    room = budget - fixed - -(-expert // tp)
    tokens, context = _cache(subject, room, per_token, beside=expert * (a.experts - 1) // tp)
    cache = tokens * per_token
    on_gpu = 0
    if context:
        on_gpu = min(a.experts, (budget - fixed - cache) * tp // expert)
    shares = [
        *weights,
        Share("routed experts", -(-expert * on_gpu // tp), f"{on_gpu} of {a.experts} a layer"),
        streaming,
        *beside.inside,
        Share(KV, cache),
    ]
    ram = (
        Share("routed experts", expert * (a.experts - on_gpu)),
        Share(
            "runtime", HYBRID_RESERVE, "buffers of kt-kernel and the operating system", guess=True
        ),
    )
    short = 0 if context else need(subject).least * per_token - room
    fit = _finish(
        subject,
        shares,
        ram if on_gpu < a.experts else (),
        tokens=tokens,
        per_token=per_token,
        context=context,
        short=short,
        settings=settings,
    )
    return fit, Offload(gpu_experts=on_gpu, threads=node.cores, numa=node.numa)


def fit_gguf(subject: Subject) -> tuple[Fit, Offload]:
    """Return the Fit of llama.cpp: layers split evenly over the GPUs, experts where they fit.

    Each GPU holds attention, shared experts and KV cache of its own layers, then the routed
    experts of as many of them as fit; the other layers' experts are computed by the CPU.
    """
    a, node, checkpoint = subject.architecture, subject.node, subject.checkpoint
    size, non_expert = int(checkpoint.size or 0), int(checkpoint.non_expert or 0)
    policy = subject.engine.memory
    moe = a.layers - a.dense_layers
    layer = (size - non_expert) // moe
    whole = kv_bytes_per_token(a, Layout(), stages(a, 1)[0], subject.kv_dtype)
    if not node.gpus:
        return _on_cpu(subject, layer * moe, non_expert, whole)
    settings = Settings(policy.fraction, 512, 1)
    beside = overhead(subject.situation, settings, subject.overheads)
    budget = int(node.gpu_memory * policy.fraction)
    cards = [
        _card(subject, block, whole=whole, budget=budget - beside.taken)
        for block in _split(a.layers, subject.layout.pp)
    ]
    tightest = min(cards, key=lambda card: card.room / card.per_token)
    wanted_experts = max(layer * len(card.moe) for card in cards)
    tokens, context = _cache(subject, tightest.room, tightest.per_token, beside=wanted_experts)
    held = tuple(
        card.moe[: max(0, (card.room - tokens * card.per_token) // layer) if context else 0]
        for card in cards
    )
    taken = [
        layer * len(experts) + card.fixed + tokens * card.per_token
        for card, experts in zip(cards, held, strict=True)
    ]
    full = taken.index(max(taken)) if context else cards.index(tightest)
    card, on_gpu = cards[full], sum(len(experts) for experts in held)
    shares = [
        Share("routed experts", layer * len(held[full]), f"{on_gpu} of {moe} layers on GPUs"),
        Share(
            "other weights",
            card.fixed - card.vision,
            "attention, shared experts, embeddings of this GPU's layers",
            guess=checkpoint.guess,
        ),
        *([Share("vision", card.vision, "mmproj, on the first GPU")] if card.vision else []),
        *beside.inside,
        Share(KV, tokens * card.per_token),
    ]
    cpu_layers = moe - on_gpu
    ram = (
        Share("routed experts", layer * cpu_layers, f"{cpu_layers} of {moe} layers"),
        Share("runtime", GGUF_RESERVE, "operating system and buffers"),
    )
    short = 0 if context else need(subject).least * tightest.per_token - tightest.room
    fit = _finish(
        subject,
        shares,
        ram if cpu_layers else (),
        tokens=tokens,
        per_token=card.per_token,
        context=context,
        short=short,
    )
    offload = Offload(gpu_layers=held, cpu_layers=cpu_layers, threads=node.cores, numa=node.numa)
    return fit, offload


@dataclass(frozen=True, slots=True)
class _Card:
    """One GPU's layers: those with experts, what it must hold, what is left, a token's cache."""

    moe: tuple[int, ...]
    fixed: int
    vision: int
    room: int
    per_token: int


def _card(subject: Subject, block: range, *, whole: int, budget: int) -> _Card:
    a = subject.architecture
    seen = subject.model.vision is not None and not subject.request.text_only
    vision = int(subject.model.vision.bytes) if subject.model.vision and seen and 0 in block else 0
    fixed = -(-int(subject.checkpoint.non_expert or 0) * len(block) // a.layers) + vision
    return _Card(
        moe=tuple(index for index in block if index >= a.dense_layers),
        fixed=fixed,
        vision=vision,
        room=budget - fixed,
        per_token=-(-whole * len(block) // a.layers),
    )


def _on_cpu(subject: Subject, experts: int, other: int, per_token: int) -> tuple[Fit, Offload]:
    room = (subject.node.ram or 0) - experts - other - GGUF_RESERVE
    tokens, context = _cache(subject, room, per_token)
    ram = (
        Share("routed experts", experts),
        Share("other weights", other, guess=subject.checkpoint.guess),
        Share(KV, tokens * per_token),
        Share("runtime", GGUF_RESERVE, "operating system and buffers"),
    )
    short = 0 if context else need(subject).least * per_token - room
    fit = _finish(
        subject, [], ram, tokens=tokens, per_token=per_token, context=context, short=short
    )
    moe = subject.architecture.layers - subject.architecture.dense_layers
    return fit, Offload(cpu_layers=moe, threads=subject.node.cores, numa=subject.node.numa)


def _split(layers: int, gpus: int) -> list[range]:
    """Split the layers over the GPUs as evenly as can be, the larger blocks first."""
    each, rest = divmod(layers, gpus)
    blocks, start = [], 0
    for index in range(gpus):
        count = each + (index < rest)
        blocks.append(range(start, start + count))
        start += count
    return blocks


def _cache(subject: Subject, room: int, per_token: int, *, beside: int = 0) -> tuple[int, int]:
    """Tokens to reserve and the context they give; (0, 0) if the least does not fit.

    The cache is reserved up front, and memory it does not take holds experts. So unless a
    context is asked for, it stops at the engine's usual one while experts are outside.
    """
    asked = need(subject)
    wanted = asked.wanted
    usual = subject.engine.memory.context_default
    if subject.request.context is None and usual is not None and room - beside < wanted * per_token:
        wanted = max(asked.least, min(wanted, usual * asked.sequences))
    tokens = min(wanted, max(0, room) // per_token)
    context = context_for(subject, tokens)
    return (context * asked.sequences, context) if context else (0, 0)


def _finish(
    subject: Subject,
    shares: list[Share],
    ram: tuple[Share, ...],
    *,
    tokens: int,
    per_token: int,
    context: int,
    short: int,
    settings: Settings | None = None,
) -> Fit:
    capacity = subject.node.gpu_memory
    fraction = settings.fraction if settings is not None else subject.engine.memory.fraction
    chosen = (
        (f"passes of {settings.batch_tokens:,} tokens: each streams the experts once",)
        if settings is not None
        else ()
    )
    left = capacity - sum(share.bytes for share in shares)
    if shares:
        shares = [*shares, Share(HEADROOM, max(0, left))]
    return Fit(
        verdict="yes" if context else "no",
        capacity=capacity,
        budget=int(capacity * fraction),
        memory_fraction=fraction,
        batch_tokens=settings.batch_tokens if settings is not None else None,
        chosen=chosen,
        shares=tuple(shares),
        kv_bytes_per_token=per_token,
        kv_tokens=tokens,
        context=context,
        max_concurrency=round(tokens / context, 2) if context else 0.0,
        short=max(0, short),
        ram=ram,
        ram_capacity=subject.node.ram,
    )
