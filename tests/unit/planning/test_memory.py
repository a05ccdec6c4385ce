"""The memory arithmetic against the numbers that were measured or worked out in public."""

from __future__ import annotations

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.planning.memory import (
    checkpoint_bytes,
    kv_bytes_per_token,
    mlp_weights,
    other_weights,
    routed_weights,
    sharded_weights,
    stages,
    weight_shares,
)
from kimideploy.planning.types import Layout

GIB = 1 << 30
CATALOG = load_catalog()
KIMI = CATALOG.architectures["kimi-k2"]
INT4 = CATALOG.formats["int4"]
VISION = 942_000_000


@pytest.mark.parametrize(
    ("tp", "gib", "text_only"),
    [
        (1, 555.2, 554.4),
        (2, 279.1, 278.2),
        (4, 140.99, 140.1),
        (8, 71.95, 71.1),
        (16, 37.4, 36.6),
        (32, 20.2, 19.3),
    ],
)
def test_int4_weights_per_gpu(tp: int, gib: float, text_only: float) -> None:
    """INT4 weights a GPU are those of the fact sheet, within one percent."""
    whole = stages(KIMI, 1)[0]

    for vision, expected in ((VISION, gib), (0, text_only)):
        shares = weight_shares(KIMI, INT4, Layout(tp=tp), whole, vision=vision)
        assert expected == pytest.approx(sum(s.bytes for s in shares) / GIB, rel=0.002)


def test_checkpoint_on_disk() -> None:
    """The INT4 checkpoint takes 595.145 GB, the bf16 one would take 2.05 TB."""
    bf16 = CATALOG.formats["bf16"]

    assert checkpoint_bytes(KIMI, INT4) + VISION == pytest.approx(595.145e9, rel=0.0001)
    assert checkpoint_bytes(KIMI, bf16) == pytest.approx(2.05e12, rel=0.005)
    assert checkpoint_bytes(KIMI, bf16) == 2 * (routed_weights(KIMI, 60) + other_weights(KIMI))


def test_a_format_that_quantises_shared_experts() -> None:
    """AMD's MXFP4 also packs shared experts and layer 0: what its index adds up to, to 0.01 %."""
    mxfp4 = CATALOG.formats["mxfp4"]
    whole = stages(KIMI, 1)[0]
    packed = mlp_weights(KIMI, whole) * (2 - 17 / 32)

    assert checkpoint_bytes(KIMI, mxfp4) + VISION == pytest.approx(558_995_180_568, rel=0.0001)
    for tp in (1, 8):
        shares = weight_shares(KIMI, mxfp4, Layout(tp=tp), whole, vision=0)
        beside = next(s.bytes for s in shares if s.cause == "other weights")
        assert beside == -(-int(sharded_weights(KIMI, whole) * 2 - packed) // tp)


def test_kv_bytes() -> None:
    """MLA caches one latent: 70,272 bytes a token in bf16, half in fp8, whole on every TP rank."""
    whole = stages(KIMI, 1)[0]

    assert kv_bytes_per_token(KIMI, Layout(tp=8), whole, "bf16") == 70_272
    assert kv_bytes_per_token(KIMI, Layout(tp=8), whole, "fp8") == 35_136
    assert kv_bytes_per_token(KIMI, Layout(tp=8), whole, "q8_0") == 37_332
    assert kv_bytes_per_token(KIMI, Layout(tp=8, dcp=8), whole, "bf16") == 8_784


def test_logged_cache_size() -> None:
    """46.80 GiB of cache hold the 715,072 tokens vLLM logged on 8 × H200."""
    per_token = kv_bytes_per_token(KIMI, Layout(tp=8), stages(KIMI, 1)[0], "bf16")

    assert pytest.approx(715_072, rel=0.001) == 46.80 * GIB / per_token


@pytest.mark.parametrize("pp", range(1, 9))
def test_stages_hold_every_layer_once(pp: int) -> None:
    """However many stages, the layers add up and the dense layer is on the first."""
    split = stages(KIMI, pp)

    assert sum(stage.layers for stage in split) == KIMI.layers
    assert sum(stage.moe for stage in split) == KIMI.layers - KIMI.dense_layers
    assert max(s.layers for s in split) - min(s.layers for s in split) <= 1
    assert split[0].layers - split[0].moe == KIMI.dense_layers
