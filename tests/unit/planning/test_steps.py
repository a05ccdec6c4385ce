"""Seconds of a pass: what must hold of any model of speed, whatever its parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import WeightFormat
from kimideploy.planning.speed import decode_rate, parameters
from kimideploy.planning.steps import (
    CHUNK,
    Machine,
    Work,
    accepted,
    active_weights,
    decode_step,
    experts_hit,
    prefill_pass,
    prefill_rate,
    prefill_seconds,
)
from kimideploy.planning.types import Layout

CATALOG = load_catalog()
KIMI = CATALOG.architectures["kimi-k2"]
P = parameters(CATALOG)
MACHINE = Machine("vllm", "sm90", 4.8e12, 989e12, "nvlink", 900e9)
WORK = Work(KIMI, CATALOG.formats["int4"], Layout(tp=8), "bf16")

batches = st.integers(1, 512)
contexts = st.integers(1, 262_144)
layouts = st.builds(
    Layout,
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2]),
    dp=st.sampled_from([1, 2]),
)
works = st.builds(
    Work,
    st.just(KIMI),
    st.sampled_from(list(CATALOG.formats.values())),
    layouts,
    st.sampled_from(["bf16", "fp8"]),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.4, 1.0]),
)
machines = st.builds(
    Machine,
    st.sampled_from(["vllm", "sglang", "ktransformers", "llamacpp"]),
    st.sampled_from([None, *sorted(CATALOG.generations)]),
    st.floats(1e11, 1e13),
    st.floats(1e13, 5e15),
    st.sampled_from(["nvlink", "pcie", "xgmi", "none"]),
    st.none() | st.floats(1e10, 2e12),
    st.integers(1, 4),
    st.integers(1, 2),
)


def seconds(work: Work, machine: Machine, *, sequences: float = 1, context: float = 1000) -> float:
    """Return the seconds of one decode step."""
    return sum(decode_step(work, machine, P, sequences=sequences, context=context).values())


def test_experts_of_one_token() -> None:
    """One token is routed to its eight experts, whatever else is read of like texts."""
    assert experts_hit(KIMI, 1, 1.0) == pytest.approx(KIMI.experts_per_token)
    assert experts_hit(KIMI, 1, 0.5) == pytest.approx(KIMI.experts_per_token)


def test_experts_of_many_tokens() -> None:
    """Two independent tokens hit 8 + 8·(1 - 8/384) experts, and endless ones hit them all."""
    assert experts_hit(KIMI, 2, 1.0) == pytest.approx(8 + 8 * (1 - 8 / 384))
    assert experts_hit(KIMI, 1e6, 1.0) == pytest.approx(384)
    assert experts_hit(KIMI, float("inf"), 0.9) == 384


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.floats(0.5, 1))
def test_more_tokens_hit_more_experts(few: float, more: float, alike: float) -> None:
    """Experts hit grow with tokens, stay within the layer's, and are fewer for like texts."""
    few, more = sorted((few, more))

    assert experts_hit(KIMI, few, alike) <= experts_hit(KIMI, more, alike) <= KIMI.experts
    assert experts_hit(KIMI, more, alike) <= experts_hit(KIMI, more, 1.0) + 1e-9


def test_active_weights() -> None:
    """A token of Kimi K2 is multiplied with some 32 of its 1,026 billion parameters."""
    assert active_weights(KIMI) == pytest.approx(32e9, rel=0.03)


@given(works, machines, batches, contexts, contexts)
def test_longer_contexts_are_slower(
    work: Work, machine: Machine, sequences: int, short: int, long: int
) -> None:
    """A step never gets faster with a fuller cache, and no cause takes less than no time."""
    short, long = sorted((short, long))

    there = decode_step(work, machine, P, sequences=sequences, context=long)
    assert all(part >= 0 for part in there.values())
    assert seconds(work, machine, sequences=sequences, context=short) <= sum(there.values())


@given(works, machines, st.integers(16, 256), st.integers(16, 256), contexts)
def test_more_users_are_slower_and_more_in_total(
    work: Work, machine: Machine, few: int, many: int, context: int
) -> None:
    """More users make each of them slower and never the whole deployment."""
    few, many = sorted((few, many))
    least = seconds(work, machine, sequences=few, context=context)
    most = seconds(work, machine, sequences=many, context=context)

    assert least <= most * (1 + 1e-9)
    assert few / least <= many / most * (1 + 1e-9)


@given(works, machines, batches, contexts, st.floats(1, 4))
def test_a_better_card_is_never_slower(
    work: Work, machine: Machine, sequences: int, context: int, factor: float
) -> None:
    """More bandwidth, arithmetic or a faster link takes no longer, in decoding and in prefill."""
    decoding = seconds(work, machine, sequences=sequences, context=context)
    reading = prefill_seconds(work, machine, P, context)
    link = machine.link_bandwidth * factor if machine.link_bandwidth else None
    for better in (
        replace(machine, bandwidth=machine.bandwidth * factor),
        replace(machine, flops=machine.flops * factor),
        replace(machine, link_bandwidth=link),
    ):
        again = seconds(work, better, sequences=sequences, context=context)
        assert again <= decoding * (1 + 1e-9)
        assert prefill_seconds(work, better, P, context) <= reading * (1 + 1e-9)


def test_bandwidth_shows_where_memory_is_the_bound() -> None:
    """Twice the bandwidth nearly halves a step of one card that reads all of its experts."""
    work = replace(WORK, layout=Layout(tp=1))
    machine = replace(MACHINE, flops=1e18)
    fast = replace(machine, bandwidth=2 * machine.bandwidth)

    before = seconds(work, machine, sequences=256, context=8192)
    assert before / seconds(work, fast, sequences=256, context=8192) == pytest.approx(2, rel=0.15)


def test_one_gpu_exchanges_nothing() -> None:
    """Without tensor parallelism there is no all-reduce; with it there is, and more over PCIe."""
    alone = decode_step(replace(WORK, layout=Layout()), MACHINE, P, sequences=64, context=1000)
    eight = decode_step(WORK, MACHINE, P, sequences=64, context=1000)
    pcie = decode_step(WORK, replace(MACHINE, link="pcie"), P, sequences=64, context=1000)

    assert alone["links"] == 0
    assert 0 < eight["links"] < pcie["links"]


def test_all_reduce_by_hand() -> None:
    """Two ring all-reduces a layer move 4·(n-1)/n times the activations over each link."""
    volume = 4 * KIMI.layers * 7 / 8 * 64 * KIMI.hidden * 2
    there = decode_step(WORK, MACHINE, P, sequences=64, context=1)

    assert there["links"] == pytest.approx(volume / P["link.nvlink"])


def test_fp4_units_multiply_what_is_packed_faster() -> None:
    """NVFP4 reads prompts faster than INT4 where there are FP4 units, and alike where not; only
    the experts gain, for all else stays bf16."""
    packed = KIMI.experts_per_token * 3 * KIMI.hidden * KIMI.expert_intermediate * 60

    def multiplying(form: WeightFormat, generation: str) -> float:
        machine = replace(MACHINE, generation=generation, bandwidth=1e15)
        work = replace(WORK, form=CATALOG.formats[form])
        return prefill_pass(work, machine, P, tokens=8192)["experts"]

    saved = multiplying("int4", "sm100") - multiplying("nvfp4", "sm100")
    peak = MACHINE.flops * P["compute"]
    products = 2 * packed * 8192 / 8 / peak
    assert saved == pytest.approx(products * (1 / P["int4"] - 1 / (P["fp4"] * P["fp4.sm100"])))
    assert multiplying("nvfp4", "sm90") == pytest.approx(multiplying("bf16", "sm90"))


def test_mxfp4_packs_the_shared_experts_too() -> None:
    """AMD's MXFP4 multiplies shared experts and layer 0 in FP4 as well, and gains more."""
    nvfp4, mxfp4 = CATALOG.formats["nvfp4"], CATALOG.formats["mxfp4"]
    machine = replace(MACHINE, generation="gfx950", bandwidth=1e15)
    passes = [
        prefill_pass(replace(WORK, form=form), machine, P, tokens=8192)["experts"]
        for form in (nvfp4, mxfp4)
    ]
    assert passes[1] < passes[0]


def test_int4_unpacks_slowly_on_triton() -> None:
    """INT4 experts multiply slower on CDNA 3, where no Marlin kernel runs; bf16 ones do not."""
    there, here = (replace(MACHINE, generation=g, bandwidth=1e15) for g in ("gfx942", "sm90"))

    def multiplying(form: WeightFormat, machine: Machine) -> float:
        work = replace(WORK, form=CATALOG.formats[form])
        return prefill_pass(work, machine, P, tokens=8192)["experts"]

    assert multiplying("int4", there) > 2 * multiplying("int4", here)
    assert multiplying("bf16", there) == pytest.approx(multiplying("bf16", here))


def test_dcp_divides_the_cache_that_is_read() -> None:
    """Eight-fold DCP reads an eighth of a long cache, and pays with exchanges in every layer."""
    dcp = replace(WORK, layout=Layout(tp=8, dcp=8))
    one = decode_step(WORK, MACHINE, P, sequences=32, context=200_000)
    eight = decode_step(dcp, MACHINE, P, sequences=32, context=200_000)

    # 64 heads are gathered on each rank, and one pass of the kernel still serves them all
    assert eight["attention"] == pytest.approx(one["attention"] / 8)
    assert eight["latency"] > one["latency"]
    assert eight["links"] > one["links"]


def test_triton_reads_the_cache_again_for_every_sixteen_heads() -> None:
    """Where MLA runs on Triton, DCP8 has four times the passes over the cache FlashMLA has."""
    dcp = replace(WORK, layout=Layout(tp=8, dcp=8))
    ampere = replace(MACHINE, generation="sm80")
    p = {**P, "serial": 1e-30}

    def attention(machine: Machine) -> float:
        return decode_step(dcp, machine, p, sequences=32, context=200_000)["attention"]

    assert attention(ampere) == pytest.approx(4 * attention(MACHINE))


def test_drafting_yields_what_is_accepted() -> None:
    """Three drafted tokens of which a third is kept make two tokens a step; none make one."""
    drafting = replace(WORK, draft=3)

    assert accepted(WORK, P) == 1
    assert accepted(drafting, {"acceptance": 1 / 3}) == pytest.approx(2)
    assert seconds(drafting, MACHINE) > seconds(WORK, MACHINE)


def test_drafting_pays_for_one_user() -> None:
    """A draft model makes a lone user faster, and less so, or not, a crowd."""

    def gain(sequences: int) -> float:
        drafting = replace(WORK, draft=3)
        with_it, without = (
            decode_rate(work, MACHINE, P, sequences=sequences, context=8192)
            for work in (drafting, WORK)
        )
        return with_it / without

    assert gain(1) > 1.1
    assert gain(1) > gain(128)


def test_traffic_slows_the_others() -> None:
    """Prompts of others are read between one user's steps; a lone user waits for nobody."""

    def rate(sequences: int, fed: float | None) -> float:
        return decode_rate(WORK, MACHINE, P, sequences=sequences, context=8192, fed=fed)

    assert rate(16, 8.0) < rate(16, 1.0) < rate(16, None)
    assert rate(1, 8.0) == rate(1, None)


def test_experts_on_the_cpu_are_read_from_host_memory() -> None:
    """Experts in host memory are read at its bandwidth, eight a layer; two NUMA nodes halve it."""
    hosted = replace(WORK, hosted=1.0)
    one = decode_step(hosted, MACHINE, P, sequences=1, context=1)
    two = decode_step(hosted, replace(MACHINE, numa=2), P, sequences=1, context=1)

    expert = 3 * KIMI.hidden * KIMI.expert_intermediate * WORK.form.expert_bytes
    assert one["host memory"] == pytest.approx(60 * 8 * expert / P["host.bandwidth"], rel=1e-6)
    assert two["host memory"] == pytest.approx(one["host memory"] / 2)
    assert "host memory" not in decode_step(WORK, MACHINE, P, sequences=1, context=1)


def test_prefill_is_read_in_chunks() -> None:
    """A prompt of two chunks takes the two passes, the second behind what the first one read."""
    chunk = CHUNK["vllm"]
    passes = [
        sum(prefill_pass(WORK, MACHINE, P, tokens=chunk, before=before).values())
        for before in (0, chunk)
    ]

    assert passes[0] < passes[1]
    assert prefill_seconds(WORK, MACHINE, P, 2 * chunk) == pytest.approx(sum(passes))


def test_prefill_rate() -> None:
    """Two pipeline stages read nearly twice as fast together as one group of the same size."""
    one = prefill_rate(WORK, MACHINE, P, 8192)
    two = prefill_rate(replace(WORK, layout=Layout(tp=8, pp=2)), MACHINE, P, 8192)

    assert one < two
    assert prefill_rate(WORK, MACHINE, P, 262_144) < one


@given(works, machines, st.integers(1, 262_144), st.integers(1, 262_144))
def test_longer_prompts_take_longer(work: Work, machine: Machine, short: int, long: int) -> None:
    """Reading a longer prompt never takes less time."""
    short, long = sorted((short, long))

    shorter, longer = (prefill_seconds(work, machine, P, prompt) for prompt in (short, long))
    assert shorter <= longer * (1 + 1e-9)
