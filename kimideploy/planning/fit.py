"""Fit: bytes by cause on the fullest GPU, for engines that keep every expert on the GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kimideploy.catalog.types import MemoryPolicy
from kimideploy.planning.memory import kv_bytes_per_token, stages, weight_shares
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Fit, Share

#: a context is cut to whole KiTokens: a round number is easier to reason about
CONTEXT_STEP = 1024
KV = "KV cache"
OVERHEAD = "activations, graphs, NCCL"
HEADROOM = "headroom"


@dataclass(frozen=True, slots=True)
class Need:
    """Tokens one rank's cache must hold: the least that makes sense, and what is wanted."""

    least: int
    wanted: int
    sequences: int


def need(subject: Subject) -> Need:
    """Return the tokens per data-parallel rank that the request asks for."""
    sequences = -(-subject.request.concurrency // subject.layout.dp)
    least = subject.wanted_context if subject.request.context is not None else subject.min_context
    return Need(
        least=least * sequences, wanted=subject.wanted_context * sequences, sequences=sequences
    )


def context_for(subject: Subject, tokens: int) -> int:
    """The context a cache of *tokens* gives each of the wanted sequences, 0 if below the least."""
    asked = need(subject)
    if tokens >= asked.wanted:
        return subject.wanted_context
    if tokens < asked.least:
        return 0
    room = tokens // asked.sequences
    return max(room - room % CONTEXT_STEP, asked.least // asked.sequences)


def fit_on_gpus(subject: Subject) -> Fit:
    """Return the Fit of a full-GPU launch.

    The engine's default memory fraction is taken if it holds the least context, else its highest
    one; only if `allow_tight` is asked for, the low end of the overhead that was seen.
    """
    policy = subject.engine.memory
    over = policy.overhead
    most = policy.fraction_max
    if subject.generation is not None and subject.generation.vendor == "amd":
        most = policy.fraction_amd if policy.fraction_amd is not None else most
    tries = [(min(policy.fraction, most), int(over.typical)), (most, int(over.typical))]
    if subject.request.allow_tight:
        tries.append((most, int(over.low)))
    best: Fit | None = None
    for index, (fraction, overhead) in enumerate(tries):
        fit = _fit(subject, policy, fraction, overhead, "tight" if index == 2 else "yes")  # noqa: PLR2004
        if fit.verdict != "no":
            return fit
        if best is None or fit.short < best.short:
            best = fit
    if best is None:
        raise AssertionError("there is always a first try")
    return best


def _fit(
    subject: Subject,
    policy: MemoryPolicy,
    fraction: float,
    overhead: int,
    verdict: Literal["yes", "tight"],
) -> Fit:
    capacity = subject.node.gpu_memory
    if policy.outside:
        fraction = min(fraction, _floor(1 - overhead / capacity))
    budget = int(capacity * fraction)
    draft = int(policy.overhead.draft or 0) if subject.draft is not None else 0
    inside = 0 if policy.outside else overhead
    ranks = []
    for stage in stages(subject.architecture, subject.layout.pp):
        if subject.form is None:
            raise AssertionError("a full-GPU engine loads a format with known weight sizes")
        weights = weight_shares(
            subject.architecture, subject.form, subject.layout, stage, vision=subject.vision
        )
        per_token = kv_bytes_per_token(
            subject.architecture, subject.layout, stage, subject.kv_dtype
        )
        pool = budget - inside - draft - sum(share.bytes for share in weights)
        ranks.append((max(pool, 0) // per_token, pool, per_token, weights))
    tokens, pool, per_token, weights = min(ranks, key=lambda rank: (rank[0], rank[1]))
    context = context_for(subject, tokens)
    asked = need(subject)
    shares = [*weights, Share(OVERHEAD, overhead, guess=policy.overhead.guess)]
    if draft:
        shares.append(Share("draft model", draft, guess=policy.overhead.guess))
    shares.append(Share(KV, max(pool, 0)))
    left = capacity - sum(share.bytes for share in shares)
    shares.append(Share(HEADROOM, max(left, 0), "beyond the engine's memory fraction"))
    return Fit(
        verdict=verdict if context else "no",
        capacity=capacity,
        memory_fraction=fraction,
        shares=tuple(shares),
        kv_bytes_per_token=per_token,
        kv_tokens=tokens * subject.layout.dp,
        context=context,
        max_concurrency=round(tokens * subject.layout.dp / context, 2) if context else 0.0,
        short=0 if context else asked.least * per_token - pool,
    )


def _floor(fraction: float) -> float:
    return max(0.01, int(fraction * 100) / 100)
