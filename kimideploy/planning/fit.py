"""Fit: bytes by cause on the fullest GPU, for engines that keep every expert on the GPUs.

The planner chooses what it tells the engine about memory (the fraction it may fill, tokens of a
pass, sequences at once) and says why. Every Fit carries how sure it is: tokens as a range, and
yes / tight / no by where in that range the least context still fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from kimideploy.planning.memory import kv_bytes_per_token, stages, weight_shares
from kimideploy.planning.overhead import CAUSES, Overhead, Settings, overhead
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Fit, Share

#: a context is cut to whole KiTokens: a round number is easier to reason about
CONTEXT_STEP = 1024
KV = "KV cache"
HEADROOM = "headroom"
#: what is not weights
BESIDE = (KV, HEADROOM, *CAUSES)

#: tokens of a pass: the engines' own on large cards, and what is tried when memory is short
_BATCHES = (8192, 2048)
#: sequences at once, and the least cache each should have: a turn of a conversation
_SEQUENCES = (256, 128, 64, 32, 16)
_TURN = 4096
_TURN_THROUGHPUT = 2048
#: tokens of a block of the cache: Triton's kernels, FlashMLA and its like
_BLOCK_TRITON = 16
_BLOCK = 64
_TRITON = ("sm80", "sm86", "sm89", "sm120")
_RANKS = {"no": 0, "tight": 1, "yes": 2}


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
    """Return the Fit of a full-GPU launch, with the first settings that give all of the context.

    The engine's default fraction comes first, then its highest; passes are made smaller only if
    the least context does not fit for sure otherwise. What the request sets is not changed.
    """
    ranks = _ranks(subject)
    tried: list[Fit] = []
    for settings in _tries(subject):
        if settings.batch_tokens < _BATCHES[0] and any(fit.verdict == "yes" for fit in tried):
            break
        fit = _fit(subject, ranks, settings, tried[0] if tried else None)
        if fit.verdict == "yes" and fit.context >= subject.wanted_context:
            return fit
        tried.append(fit)
    return max(tried, key=lambda fit: (_RANKS[fit.verdict], fit.context, -fit.short))


def fit_with(subject: Subject, settings: Settings) -> Fit:
    """Return the Fit of exactly *settings*, as somebody ran them."""
    return _fit(subject, _ranks(subject), settings, None, exactly=True)


@dataclass(frozen=True, slots=True)
class _Rank:
    """One pipeline stage on one GPU: its weights, and the bytes of a cached token."""

    weights: tuple[Share, ...]
    per_token: int

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.weights)


def _ranks(subject: Subject) -> list[_Rank]:
    if subject.form is None:
        raise AssertionError("a full-GPU engine loads a format with known weight sizes")
    a, layout = subject.architecture, subject.layout
    ranks = []
    for stage in stages(a, layout.pp):
        weights = weight_shares(a, subject.form, layout, stage, vision=subject.vision)
        extra = 1 if subject.draft is not None and stage.last else 0
        per_token = kv_bytes_per_token(a, layout, stage, subject.kv_dtype, extra=extra)
        ranks.append(_Rank(weights, per_token))
    return ranks


def _tries(subject: Subject) -> Iterator[Settings]:
    request, policy = subject.request, subject.engine.memory
    batches = (request.batch_tokens,) if request.batch_tokens is not None else _BATCHES
    many = _SEQUENCES if request.sequences is None else (request.sequences,)
    if request.memory_fraction is not None:
        for batch in batches:
            yield Settings(request.memory_fraction, batch, many[0])
        return
    if subject.engine.id == "vllm" and subject.sets_aside_too_much:
        yield Settings(policy.fraction, batches[0], many[0])
        plain = Settings(policy.fraction, batches[0], many[0], estimated=False)
        yield Settings(_most(subject, plain), batches[0], many[0], estimated=False)
    for batch in batches:
        fractions = dict.fromkeys(_fractions(subject, Settings(policy.fraction, batch, many[0])))
        for fraction in fractions:
            yield Settings(fraction, batch, many[0])


def _fractions(subject: Subject, settings: Settings) -> tuple[float, ...]:
    """The default fraction and the highest one that leaves room for what lies outside."""
    policy, most = subject.engine.memory, _most(subject, settings)
    return (most,) if policy.outside else (min(policy.fraction, most), most)


def _most(subject: Subject, settings: Settings) -> float:
    policy, capacity = subject.engine.memory, max(1, subject.node.gpu_memory)
    limit = policy.fraction_max
    if subject.generation is not None and subject.generation.vendor == "amd":
        limit = policy.fraction_amd if policy.fraction_amd is not None else limit
    left = overhead(subject.situation, settings, subject.overheads).left
    return max(0.01, min(limit, int((1 - left / capacity) * 100) / 100))


def _fit(
    subject: Subject,
    ranks: Sequence[_Rank],
    settings: Settings,
    first: Fit | None,
    *,
    exactly: bool = False,
) -> Fit:
    """Return the Fit of *settings*, with as many sequences as its cache serves well."""
    turn = _TURN_THROUGHPUT if subject.request.goal == "throughput" else _TURN
    many = [n for n in _SEQUENCES if n <= settings.sequences] or [settings.sequences]
    if exactly or subject.request.sequences is not None:
        many = [settings.sequences]
    for sequences in many:
        asked = min(subject.request.concurrency, settings.sequences)
        chosen = replace(settings, sequences=max(sequences, asked))
        taken = overhead(subject.situation, chosen, subject.overheads)
        budget = _budget(subject, chosen, taken)
        pools = [(budget - taken.taken - rank.bytes, rank) for rank in ranks]
        pool, rank = min(
            pools, key=lambda entry: (max(entry[0], 0) // entry[1].per_token, entry[0])
        )
        tokens = _tokens(subject, pool, rank.per_token)
        if tokens >= chosen.sequences * turn or sequences == many[-1]:
            return _made(subject, _Filled(chosen, taken, budget, pool, rank), first)
    raise AssertionError("the last number of sequences is always taken")


def _budget(subject: Subject, settings: Settings, taken: Overhead) -> int:
    """Bytes the engine may fill. SGLang's fraction is of what its runtime left free."""
    capacity = subject.node.gpu_memory
    if not subject.engine.memory.outside:
        return int(capacity * settings.fraction)
    runtime = taken.inside[0].bytes
    return int((capacity - runtime) * settings.fraction) + runtime


def _tokens(subject: Subject, pool: int, per_token: int) -> int:
    """Tokens a pool holds: whole blocks, each spread over the DCP ranks."""
    generation = subject.generation.id if subject.generation is not None else None
    block = _BLOCK_TRITON if generation in _TRITON else _BLOCK
    block *= subject.layout.dcp
    return max(pool, 0) // per_token // block * block


@dataclass(frozen=True, slots=True)
class _Filled:
    """The fullest rank under some settings: what is taken, and what is left for the cache."""

    settings: Settings
    taken: Overhead
    budget: int
    pool: int
    rank: _Rank


def _made(subject: Subject, filled: _Filled, first: Fit | None) -> Fit:
    settings, taken, rank = filled.settings, filled.taken, filled.rank
    budget, pool = filled.budget, filled.pool
    capacity, dp = subject.node.gpu_memory, subject.layout.dp
    low, tokens, high = (
        _tokens(subject, pool + sure, rank.per_token)
        for sure in (-subject.spread, 0, subject.spread)
    )
    asked = need(subject)
    crowded = capacity - budget < taken.left
    verdict: Literal["yes", "tight", "no"] = "no"
    if not crowded and context_for(subject, low):
        verdict = "yes"
    elif not crowded and context_for(subject, tokens):
        verdict = "tight"
    elif subject.request.allow_tight and context_for(subject, high):
        verdict = "tight"
        pool, tokens = pool + subject.spread, high
    context = context_for(subject, tokens) if verdict != "no" else 0
    shares = [*rank.weights, *taken.inside, Share(KV, max(pool, 0))]
    left = capacity - sum(share.bytes for share in shares)
    shares.append(Share(HEADROOM, max(left, 0), "beyond the engine's memory fraction"))
    fit = Fit(
        verdict=verdict,
        capacity=capacity,
        budget=budget,
        memory_fraction=settings.fraction,
        batch_tokens=settings.batch_tokens,
        sequences=settings.sequences,
        graphs_set_aside=settings.estimated if subject.engine.id == "vllm" else None,
        shares=tuple(shares),
        outside=taken.outside,
        kv_bytes_per_token=rank.per_token,
        kv_tokens=tokens * dp,
        kv_tokens_low=min(low, tokens) * dp,
        kv_tokens_high=max(high, tokens) * dp,
        context=context,
        max_concurrency=round(tokens * dp / context, 2) if context else 0.0,
        short=0 if context else max(1, asked.least * rank.per_token - pool),
    )
    return _explained(subject, fit, first)


def _explained(subject: Subject, fit: Fit, first: Fit | None) -> Fit:
    """Return *fit* with the reasons for its settings; *first* is what the defaults gave."""
    request, policy = subject.request, subject.engine.memory
    fraction = f"memory fraction {fit.memory_fraction:g}: "
    if request.memory_fraction is not None:
        fraction += "as asked"
    elif policy.outside:
        fraction += f"the rest is {subject.engine.name}'s own reserve for activations and graphs"
    elif first is None or fit.memory_fraction == first.memory_fraction:
        fraction += "the engine's default"
    elif first.context:
        fraction += f"{first.memory_fraction:g} would hold {first.context:,} tokens of context"
    else:
        fraction += f"{first.memory_fraction:g} would not hold the least context"
    batch = f"passes of {fit.batch_tokens:,} tokens: "
    if request.batch_tokens is not None:
        batch += "as asked"
    elif fit.batch_tokens == _BATCHES[0]:
        batch += "prompts are read fast, and others wait little"
    else:
        batch += "larger ones take memory the cache needs"
    each = fit.kv_tokens // max(1, fit.sequences or 1)
    sequences = f"{fit.sequences} sequences at once: "
    sequences += "as asked" if request.sequences is not None else f"{each:,} tokens of cache each"
    lines = [fraction, batch, sequences]
    if fit.graphs_set_aside is False:
        lines.append("graphs are not set aside: vLLM's estimate for this GPU is several times them")
    return msgspec.structs.replace(fit, chosen=tuple(lines))
