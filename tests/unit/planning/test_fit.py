"""Does it fit: yes, tight or no, how many tokens for sure, and with which settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.planning.fit import CONTEXT_STEP, context_for, fit_on_gpus, fit_with, need
from kimideploy.planning.overhead import Settings, overhead
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Fit, Layout, Node, Request
from kimideploy.quantities import GIB

CATALOG = load_catalog()
MODEL = CATALOG.models["kimi-k2.7-code"]
INT4 = next(c for c in MODEL.checkpoints if c.id == "int4")
SETTINGS = Settings(0.9, 8192, 256)


def subject(
    gpu: str = "h200",
    *,
    engine: EngineId = "vllm",
    layout: Layout | None = None,
    memory: int | None = None,
    **request: Any,
) -> Subject:
    """Return the INT4 checkpoint on eight cards, of *memory* bytes each if that is given."""
    card = CATALOG.gpus[gpu]
    layout = layout or Layout(tp=8)
    return Subject(
        request=Request(**request),
        model=MODEL,
        architecture=CATALOG.architectures[MODEL.architecture],
        checkpoint=INT4,
        form=CATALOG.formats["int4"],
        engine=CATALOG.engines[engine],
        gpu=card,
        generation=CATALOG.generations[card.generation],
        node=Node(
            name="node0",
            gpu=card.id,
            gpus=layout.gpus,
            gpu_memory=memory if memory is not None else int(card.memory.usable),
            generation=card.generation,
            domain=8,
        ),
        nodes=1,
        layout=layout,
        kv_dtype="bf16",
        tier="",
        known=CATALOG.overhead,
    )


def memory_for(context: int, *, spare: int, allow_tight: bool = False) -> Subject:
    """Return the subject on cards that hold exactly *context* tokens and *spare* bytes."""
    there = subject(context=context, allow_tight=allow_tight)
    fit = fit_with(there, SETTINGS)
    used = sum(share.bytes for share in fit.shares if share.cause not in ("KV cache", "headroom"))
    wanted = used + context * fit.kv_bytes_per_token + spare
    memory = int(wanted / SETTINGS.fraction) + 1
    return replace(there, node=msgspec.structs.replace(there.node, gpu_memory=memory))


def test_verdict_is_by_how_sure_the_tokens_are() -> None:
    """What holds at the low end of the bar is a yes, in the middle tight, below it a no."""
    spread = subject().spread
    cases = {"yes": spread + GIB // 10, "tight": spread // 2, "no": -spread // 2}

    for verdict, spare in cases.items():
        assert fit_with(memory_for(32_768, spare=spare), SETTINGS).verdict == verdict


def test_tight_is_accepted_below_the_middle_if_asked() -> None:
    """With --allow-tight a context counts that only the high end of the bar holds, and no more."""
    near, far = -subject().spread // 2, -2 * subject().spread

    asked = fit_with(memory_for(32_768, spare=near, allow_tight=True), SETTINGS)
    assert (asked.verdict, asked.context) == ("tight", 32_768)
    assert fit_with(memory_for(32_768, spare=far, allow_tight=True), SETTINGS).verdict == "no"


def test_a_no_says_how_much_is_missing() -> None:
    """A no gives no context, and the bytes that one card lacks."""
    fit = fit_with(memory_for(32_768, spare=-2 * GIB), SETTINGS)

    assert (fit.verdict, fit.context, fit.max_concurrency) == ("no", 0, 0)
    assert fit.short == pytest.approx(2 * GIB, rel=0.001)


def test_a_wider_bar_makes_a_yes_tight() -> None:
    """The verdict follows the margin of the profile: the same bytes are tight under a wider one."""
    sure = memory_for(32_768, spare=subject().spread + GIB // 10)
    wider = {
        name: msgspec.structs.replace(entry, bytes=type(entry.bytes)(entry.bytes * 2))
        for name, entry in CATALOG.overhead.spreads.items()
    }
    doubtful = replace(sure, known=msgspec.structs.replace(CATALOG.overhead, spreads=wider))

    assert fit_with(sure, SETTINGS).verdict == "yes"
    assert fit_with(doubtful, SETTINGS).verdict == "tight"
    assert fit_with(sure, SETTINGS).kv_tokens == fit_with(doubtful, SETTINGS).kv_tokens


def test_bars_of_what_nobody_logged() -> None:
    """Another engine has a wider bar, and so has a card whose memory nobody measured."""
    h200 = subject()
    guessed = msgspec.structs.replace(
        CATALOG.gpus["h200"],
        memory=msgspec.structs.replace(CATALOG.gpus["h200"].memory, guess=True),
    )

    assert subject(engine="sglang").spread > h200.spread
    assert replace(h200, gpu=guessed).spread > h200.spread
    assert replace(h200, gpu=None, generation=None).spread > h200.spread


@pytest.mark.parametrize(
    ("gpu", "dcp", "block"),
    [("h200", 1, 64), ("h200", 8, 512), ("rtx-pro-6000", 1, 16), ("rtx-pro-6000", 4, 64)],
)
def test_tokens_are_whole_blocks(gpu: str, dcp: int, block: int) -> None:
    """The cache holds whole blocks of 64 tokens, 16 on Triton, on every DCP rank, and no more."""
    fit = fit_with(subject(gpu, layout=Layout(tp=8, dcp=dcp)), SETTINGS)
    pool = fit.of("KV cache")

    assert fit.kv_tokens % block == 0
    assert 0 <= pool - fit.kv_tokens * fit.kv_bytes_per_token < block * fit.kv_bytes_per_token


def test_data_parallel_pools_are_added() -> None:
    """Each data-parallel group has a cache of its own; the plan has the sum of them."""
    one = fit_with(subject(layout=Layout(tp=8)), SETTINGS)
    two = fit_with(subject(layout=Layout(tp=8, dp=2)), SETTINGS)

    assert two.kv_tokens % 2 == 0
    assert two.kv_tokens // 2 * two.kv_bytes_per_token <= two.of("KV cache")
    assert two.kv_tokens > one.kv_tokens


def test_the_default_fraction_comes_first() -> None:
    """Where the engine's own fraction holds the whole context it is kept, and that is said."""
    fit = fit_on_gpus(subject())

    assert fit.memory_fraction == CATALOG.engines["vllm"].memory.fraction
    assert fit.context == MODEL.context
    assert "the engine's default" in fit.chosen[0]


def test_a_higher_fraction_where_the_default_is_too_low() -> None:
    """Where memory is short the fraction rises, never above the engine's limit, with the reason."""
    usable = 85 * GIB
    fit, plain = fit_on_gpus(subject(memory=usable)), fit_with(subject(memory=usable), SETTINGS)

    assert SETTINGS.fraction < fit.memory_fraction <= CATALOG.engines["vllm"].memory.fraction_max
    assert fit.kv_tokens > plain.kv_tokens
    assert "0.9 would" in fit.chosen[0]
    outside = sum(share.bytes for share in fit.outside)
    assert fit.capacity - fit.budget >= outside


@pytest.mark.parametrize("fraction", [0.5, 0.77, 0.9, 0.95])
def test_what_is_asked_is_not_changed(fraction: float) -> None:
    """A fraction, passes and sequences of the request stand in the Fit as they were asked for."""
    fit = fit_on_gpus(subject(memory_fraction=fraction, batch_tokens=4096, sequences=48))

    assert (fit.memory_fraction, fit.batch_tokens, fit.sequences) == (fraction, 4096, 48)
    assert all("as asked" in line for line in fit.chosen[:3])


@pytest.mark.parametrize("settings", [SETTINGS, Settings(0.83, 3000, 7), Settings(0.97, 512, 999)])
def test_fit_with_takes_exact_settings(settings: Settings) -> None:
    """What somebody ran is counted as it was run, with sequences no plan would choose."""
    there = subject()
    fit = fit_with(there, settings)

    assert (fit.memory_fraction, fit.batch_tokens, fit.sequences) == (
        settings.fraction,
        settings.batch_tokens,
        settings.sequences,
    )
    taken = overhead(there.situation, settings, there.overheads).taken
    beside = ("routed experts", "other weights", "replicated", "absorbed", "vision")
    weights = sum(fit.of(cause) for cause in beside)
    assert fit.of("KV cache") == fit.budget - taken - weights


def test_a_launch_that_leaves_nothing_outside_is_a_no() -> None:
    """A fraction that leaves less free than what is allocated later does not start."""
    settings = Settings(0.99, 8192, 256)
    fit = fit_with(subject(memory=90 * GIB), settings)

    assert fit.capacity - fit.budget < sum(share.bytes for share in fit.outside)
    assert fit.verdict == "no"


def test_sequences_are_fewer_where_the_cache_is_small() -> None:
    """Each sequence gets a turn of a conversation: a small cache serves fewer at once."""
    roomy, small = fit_on_gpus(subject()), fit_on_gpus(subject(memory=86 * GIB))
    assert roomy.sequences is not None
    assert small.sequences is not None

    assert small.sequences < roomy.sequences
    assert small.kv_tokens // small.sequences >= 4096


def test_context_is_cut_to_round_numbers() -> None:
    """A cache that holds some context gives whole KiTokens of it; below the least it gives none."""
    there = subject(min_context=16_384, concurrency=2)

    assert context_for(there, 2 * 16_384 - 1) == 0
    assert context_for(there, 2 * 16_384) == 16_384
    assert context_for(there, 2 * 20_000) == 20_000 - 20_000 % CONTEXT_STEP
    assert context_for(there, 10**9) == MODEL.context


def test_need_is_per_group() -> None:
    """Requests are shared out over data-parallel groups, the last one rounded up."""
    asked = need(subject(layout=Layout(tp=8, dp=2), concurrency=5, context=10_000))

    assert (asked.sequences, asked.least, asked.wanted) == (3, 30_000, 30_000)


requests = st.fixed_dictionaries(
    {
        "context": st.none() | st.integers(1, 131_072),
        "concurrency": st.integers(1, 32),
        "draft": st.booleans(),
        "text_only": st.booleans(),
        "allow_tight": st.booleans(),
    }
)
layouts = st.sampled_from(
    [Layout(tp=8), Layout(tp=8, dcp=4), Layout(tp=8, pp=2), Layout(tp=8, dp=2), Layout(tp=16)]
)
engines = st.sampled_from(["vllm", "sglang"])
gpus = st.sampled_from(["h200", "b200", "rtx-pro-6000", "a100-80", "mi300x"])
set_ups = st.tuples(gpus, engines, layouts)
SetUp = tuple[str, EngineId, Layout]


@given(set_ups, requests, st.integers(20, 300), st.integers(0, 64))
def test_more_memory_never_holds_fewer_tokens(
    set_up: SetUp, request: dict[str, Any], gib: int, more: int
) -> None:
    """The same settings on a larger card hold no fewer tokens, and fit no worse."""
    gpu, engine, layout = set_up
    small = subject(gpu, engine=engine, layout=layout, memory=gib * GIB, **request)
    large = subject(gpu, engine=engine, layout=layout, memory=(gib + more) * GIB, **request)
    # SGLang keeps a larger least reserve on cards of more than 60 GiB
    assume(engine == "vllm" or (gib > 60) == (gib + more > 60))
    less, fit = fit_with(small, SETTINGS), fit_with(large, SETTINGS)

    assert less.kv_tokens <= fit.kv_tokens
    assert rank(less) <= rank(fit)


@given(set_ups, requests, st.integers(20, 300))
def test_the_range_is_in_order(set_up: SetUp, request: dict[str, Any], gib: int) -> None:
    """Tokens for sure are at most the typical ones and these at most the highest; bytes add up."""
    gpu, engine, layout = set_up
    fit = fit_on_gpus(subject(gpu, engine=engine, layout=layout, memory=gib * GIB, **request))

    assert fit.kv_tokens_low is not None
    assert fit.kv_tokens_high is not None
    assert 0 <= fit.kv_tokens_low <= fit.kv_tokens <= fit.kv_tokens_high
    if fit.verdict != "no":
        assert sum(share.bytes for share in fit.shares) == fit.capacity
        assert fit.context * max(1, fit.max_concurrency) <= fit.kv_tokens * 1.01


def rank(fit: Fit) -> int:
    """Return how good a verdict is."""
    return ("no", "tight", "yes").index(fit.verdict)
