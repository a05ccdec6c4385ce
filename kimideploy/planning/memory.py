"""Bytes of weights and KV cache on one GPU, from the model's config and the layout.

Everything here is arithmetic on `profiles/architectures.yaml` (the config.json of the model) and
the weight format; no measured number enters. Checked against logs: INT4 at TP8 gives 71.95 GiB
where vLLM logged 72.02 GiB (https://github.com/vllm-project/vllm/issues/40652), and
46.80 GiB of KV cache gives 715,000 tokens where vLLM logged 715,072
(https://github.com/vllm-project/recipes, moonshotai/Kimi-K2-Think.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from kimideploy.catalog.types import Architecture, Format, KvDtype
from kimideploy.planning.types import Layout, Share

#: bytes of one cached value; q8_0 stores 32 values and a 2-byte scale in 34 bytes (llama.cpp)
KV_BYTES: dict[KvDtype, tuple[int, int]] = {"bf16": (2, 1), "fp8": (1, 1), "q8_0": (34, 32)}


@dataclass(frozen=True, slots=True)
class Stage:
    """The layers one pipeline stage holds."""

    layers: int
    moe: int
    first: bool
    last: bool


def stages(architecture: Architecture, pp: int) -> tuple[Stage, ...]:
    """Split the layers as vLLM does (distributed/utils.py, get_pp_indices): evenly, and what is
    left over goes to the stages before the last, one each, from the back."""
    each, rest = divmod(architecture.layers, pp)
    counts = [each] * pp
    for back in range(2, rest + 2):
        counts[-back] += 1
    dense = architecture.dense_layers
    result = []
    for index, count in enumerate(counts):
        here = min(dense, count)
        dense -= here
        result.append(Stage(layers=count, moe=count - here, first=index == 0, last=index == pp - 1))
    return tuple(result)


def routed_weights(architecture: Architecture, moe_layers: int) -> int:
    """Parameters of all routed experts of *moe_layers* layers: three matrices an expert."""
    a = architecture
    return moe_layers * a.experts * 3 * a.hidden * a.expert_intermediate


def other_weights(architecture: Architecture) -> int:
    """Parameters that are no routed expert and no vision tower, over the whole model."""
    whole = stages(architecture, 1)[0]
    return sharded_weights(architecture, whole) + replicated_weights(architecture, whole)


def mlp_weights(architecture: Architecture, stage: Stage) -> int:
    """Parameters of *stage* in the MLPs that every token passes: shared experts, dense layers."""
    a = architecture
    shared = 3 * a.hidden * a.expert_intermediate * a.shared_experts
    dense = 3 * a.hidden * a.dense_intermediate
    return stage.moe * shared + (stage.layers - stage.moe) * dense


def sharded_bytes(architecture: Architecture, form: Format, stage: Stage) -> float:
    """Bytes of *stage* that TP shards and that are no routed expert."""
    mlp = mlp_weights(architecture, stage)
    return mlp * form.mlp_bytes + (sharded_weights(architecture, stage) - mlp) * form.other_bytes


def checkpoint_bytes(architecture: Architecture, form: Format) -> int:
    """Bytes of the whole checkpoint but for a vision tower."""
    whole = stages(architecture, 1)[0]
    return int(
        routed_weights(architecture, whole.moe) * form.expert_bytes
        + sharded_bytes(architecture, form, whole)
        + replicated_weights(architecture, whole) * form.other_bytes
    )


def weight_shares(
    architecture: Architecture,
    form: Format,
    layout: Layout,
    stage: Stage,
    *,
    vision: int,
    routed: bool = True,
) -> tuple[Share, ...]:
    """Bytes of weights by cause on one rank of *stage*.

    TP shards all matrices but the low-rank projections and the router, which every rank holds;
    with expert parallelism the experts are spread over tp × dp ranks, the rest over tp only.
    """
    spread = layout.tp * layout.dp
    experts = -(-int(routed_weights(architecture, stage.moe) * form.expert_bytes) // spread)
    sharded = -(-int(sharded_bytes(architecture, form, stage)) // layout.tp)
    shares = [
        Share("routed experts", experts),
        Share("other weights", sharded, "attention, shared experts, dense layer, embeddings"),
        Share(
            "replicated",
            int(replicated_weights(architecture, stage) * form.other_bytes),
            "low-rank projections, norms, router: whole on every rank",
        ),
        Share(
            "absorbed",
            -(-int(_absorbed(architecture, stage) * form.other_bytes) // layout.tp),
            "copies of W_UK and W_UV that MLA keeps for decoding",
            guess=True,
        ),
    ]
    if not routed:
        shares = shares[1:]
    if stage.first and vision:
        shares.append(
            Share("vision", vision, "whole on every rank: the encoder runs data-parallel")
        )
    return tuple(shares)


def kv_bytes_per_token(
    architecture: Architecture, layout: Layout, stage: Stage, dtype: KvDtype, *, extra: int = 0
) -> int:
    """KV bytes one token takes on one rank: MLA keeps one latent, whole on every TP rank.

    Decode context parallelism spreads tokens over ranks, and this is a rank's share of one.
    Stages hold their own layers only; `extra` layers are a draft model's.
    """
    values = (stage.layers + extra) * (architecture.kv_lora_rank + architecture.qk_rope_head_dim)
    numerator, denominator = KV_BYTES[dtype]
    return -(-values * numerator // (denominator * layout.dcp))


def sharded_weights(architecture: Architecture, stage: Stage) -> int:
    """Parameters of *stage* that TP shards and that are no routed expert."""
    a = architecture
    head = a.qk_nope_head_dim + a.qk_rope_head_dim
    attention = (
        a.q_lora_rank * a.heads * head
        + a.kv_lora_rank * a.heads * (a.qk_nope_head_dim + a.v_head_dim)
        + a.heads * a.v_head_dim * a.hidden
    )
    ends = a.vocabulary * a.hidden * (stage.first + stage.last)
    return stage.layers * attention + mlp_weights(a, stage) + ends


def replicated_weights(architecture: Architecture, stage: Stage) -> int:
    """Parameters of *stage* that every TP rank holds whole: low-rank projections, norms, router."""
    a = architecture
    low_rank = a.hidden * (a.q_lora_rank + a.kv_lora_rank + a.qk_rope_head_dim)
    norms = 2 * a.hidden + a.q_lora_rank + a.kv_lora_rank
    router = a.experts * a.hidden + a.experts
    return stage.layers * (low_rank + norms) + stage.moe * router + a.hidden * stage.last


def _absorbed(a: Architecture, stage: Stage) -> int:
    return stage.layers * a.kv_lora_rank * a.heads * (a.qk_nope_head_dim + a.v_head_dim)
