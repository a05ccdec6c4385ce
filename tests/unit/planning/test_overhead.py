"""GPU memory beside weights and cache: what each engine takes, by cause."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.planning.overhead import (
    ACTIVATIONS,
    DRAFT,
    GRAPHS,
    RUNTIME,
    Overhead,
    Settings,
    Situation,
    captured_sizes,
    overhead,
)
from kimideploy.planning.types import Layout
from kimideploy.quantities import GIB, MIB

CATALOG = load_catalog()
KIMI = CATALOG.architectures["kimi-k2"]
P = {name: entry.value for name, entry in CATALOG.overhead.parameters.items()}
H200 = Situation("vllm", KIMI, Layout(tp=8), "sm90", "nvlink", 140 * GIB)
USUAL = Settings(0.9, 8192, 256)
ENGINES: tuple[EngineId, ...] = ("vllm", "sglang", "ktransformers", "llamacpp")


def of(found: Overhead, cause: str) -> int:
    """Return the bytes of a cause, inside and outside."""
    return sum(share.bytes for share in (*found.inside, *found.outside) if share.cause == cause)


@given(
    st.tuples(st.sampled_from(ENGINES), st.sampled_from(["pcie", "nvlink", "xgmi"])),
    st.tuples(st.integers(512, 65_536), st.integers(512, 65_536)),
    st.tuples(st.integers(1, 1024), st.integers(1, 1024)),
    st.booleans(),
    st.integers(0, 4),
)
def test_larger_settings_take_no_less(
    on: tuple[EngineId, str],
    batches: tuple[int, int],
    sequences: tuple[int, int],
    estimated: bool,
    draft: int,
) -> None:
    """Longer passes and more sequences never take less memory, and nothing takes less than none."""
    situation = replace(H200, engine=on[0], link=on[1], draft=draft)
    small = overhead(situation, Settings(0.9, min(batches), min(sequences), estimated), P)
    large = overhead(situation, Settings(0.9, max(batches), max(sequences), estimated), P)

    assert small.taken + small.left <= large.taken + large.left
    assert all(share.bytes >= 0 for share in (*small.inside, *small.outside))


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, 1), (2, 2), (4, 3), (8, 4), (16, 5), (256, 35), (512, 51), (1024, 83)],
)
def test_captured_sizes(most: int, sizes: int) -> None:
    """vLLM captures 1, 2, 4, every eighth size to 256 and every sixteenth beyond."""
    listed = [n for n in (1, 2, 4, *range(8, 256, 8), *range(256, 1025, 16)) if n <= most]

    assert sizes == len(listed)
    assert sizes == captured_sizes(H200, Settings(0.9, 8192, 256, captured=most))


def test_graphs_are_for_twice_the_sequences() -> None:
    """Without a stated size, graphs reach twice the sequences, 512 at most, 1024 on sm100."""
    few, many = Settings(0.9, 8192, 64), Settings(0.9, 8192, 1024)

    def upto(most: int) -> int:
        return captured_sizes(H200, Settings(0.9, 8192, 1, captured=most))

    assert captured_sizes(H200, few) == upto(128)
    assert captured_sizes(H200, many) == upto(512)
    assert captured_sizes(replace(H200, generation="sm100"), many) == upto(1024)


def test_graphs_are_inside_where_they_are_estimated() -> None:
    """vLLM takes graphs from inside its fraction if it estimates them, else they need room."""
    inside = overhead(H200, USUAL, P)
    outside = overhead(H200, replace(USUAL, estimated=False), P)

    assert GRAPHS in {share.cause for share in inside.inside}
    assert GRAPHS in {share.cause for share in outside.outside}
    assert inside.taken - outside.taken == of(inside, GRAPHS) == of(outside, GRAPHS)


def test_the_estimate_of_blackwell_is_too_large() -> None:
    """On B200 vLLM sets several times the graphs' memory aside, unless told not to."""
    b200 = replace(H200, generation="sm100")
    estimated = of(overhead(b200, USUAL, P), GRAPHS)
    taken = of(overhead(b200, replace(USUAL, estimated=False), P), GRAPHS)

    assert estimated == pytest.approx(taken * P["graph.sm100"], rel=1e-6)
    assert estimated > 3 * taken


def test_activations_by_hand() -> None:
    """A pass of 8,192 tokens keeps a row for each of its experts, and 64 Ki unpacked tokens."""
    row = 8192 * KIMI.hidden * 2 * (8 + P["rows"])
    unpacked = 64 * 1024 * 8 * (128 + 128) * 2

    found = overhead(H200, Settings(0.9, 8192, 64), P)
    assert of(found, ACTIVATIONS) == pytest.approx(row + unpacked, abs=2)


def test_sampling_can_be_the_larger() -> None:
    """With short passes and many sequences the logits are what the profile finds."""
    (share,) = [
        share
        for share in overhead(H200, Settings(0.9, 512, 1024), P).inside
        if share.cause == ACTIVATIONS
    ]

    assert share.note == "sampling for 1,024 sequences"
    assert share.bytes == int(1024 * (KIMI.hidden * 2 + KIMI.vocabulary * P["logit"]))


def test_a_draft_takes_its_weights_and_its_work() -> None:
    """A draft model's weights are split over the ranks, its buffers are not; graphs grow too."""
    without, with_it = overhead(H200, USUAL, P), overhead(replace(H200, draft=3), USUAL, P)
    four = overhead(replace(H200, draft=3, layout=Layout(tp=4)), USUAL, P)

    assert of(without, DRAFT) == 0
    assert of(with_it, DRAFT) == int(P["draft.weights"]) // 8 + int(P["draft.work"])
    assert of(four, DRAFT) - of(with_it, DRAFT) == int(P["draft.weights"]) // 8
    assert of(with_it, GRAPHS) > of(without, GRAPHS)


def test_dcp_takes_larger_graphs() -> None:
    """DCP adds exchanges to every captured graph and nothing else."""
    one, eight = (overhead(replace(H200, layout=Layout(tp=8, dcp=dcp)), USUAL, P) for dcp in (1, 8))

    assert of(eight, GRAPHS) == pytest.approx(of(one, GRAPHS) * P["graph.dcp"], abs=2)
    assert eight.taken - one.taken == of(eight, GRAPHS) - of(one, GRAPHS)


@pytest.mark.parametrize(
    ("link", "name"),
    [("pcie", "pcie"), ("nvlink-bridge", "pcie"), ("nvlink", "nvlink"), ("xgmi", "xgmi")],
)
def test_runtime_is_of_the_link(link: str, name: str) -> None:
    """Communication buffers are of the link; a bridge between two cards is no NVLink switch."""
    assert of(overhead(replace(H200, link=link), USUAL, P), RUNTIME) == int(P[f"runtime.{name}"])


def test_sglang_reserves_beside_its_fraction() -> None:
    """SGLang keeps activations and graphs outside, ten GiB at least on a card of this size."""
    large = overhead(replace(H200, engine="sglang"), USUAL, P)
    card = replace(H200, engine="sglang", capacity=48 * GIB)
    small = overhead(card, Settings(0.9, 2048, 16), P)

    assert {share.cause for share in large.inside} == {RUNTIME}
    assert large.left >= 10 * GIB * 0.99
    assert small.left == pytest.approx(
        512 * MIB + 1024 * MIB + 2048 * P["sglang.token"] + 16 * P["sglang.graph"], abs=2
    )


def test_parts_are_said() -> None:
    """Every part says in words what it is for, so that a plan can be argued with."""
    for engine in ENGINES:
        found = overhead(replace(H200, engine=engine, draft=3), USUAL, P)
        assert all(share.note for share in (*found.inside, *found.outside))
