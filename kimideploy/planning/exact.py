"""What lands on each rank, summed tensor by tensor from a checkpoint's own headers.

`planning/memory.py` works the same bytes out from the config; the causes are the same words, so
that the two can be laid side by side. What is divided how is what vLLM does: column- and
row-parallel matrices over TP, the low-rank projections, norms and router whole on every rank
(model_executor/models/deepseek_v2.py), experts over tp × dp ranks, the vision encoder whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from kimideploy.catalog.types import Architecture
from kimideploy.planning.memory import Stage, stages
from kimideploy.planning.tensors import FIRST, LAST, Part, Tensor, part_of
from kimideploy.planning.types import Layout, Share
from kimideploy.planning.weighing import Exact, StageBytes, Unknown

#: the modules that every layer has, and what the dense and the other layers have beside them
ATTENTION = frozenset({"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"})
#: engines read W_UK and W_UV out of kv_b_proj in bf16, whatever it is stored in
_ABSORBED_BYTES = 2


@dataclass(slots=True)
class _Layer:
    """Bytes of one layer, or of one end of the model."""

    sharded: int = 0
    replicated: int = 0
    vision: int = 0
    #: expert → bytes that TP divides, bytes that it does not
    experts: dict[int, list[int]] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)


def exact_shares(tensors: Sequence[Tensor], architecture: Architecture, layout: Layout) -> Exact:
    """Return what *tensors* take on each rank of *layout*, by the causes of `weight_shares`.

    The shares of a stage are those of its fullest rank; ranks differ where the experts do not
    divide evenly. *layout* must have no more stages than there are layers.
    """
    layers: dict[int, _Layer] = defaultdict(_Layer)
    unknown = []
    for tensor in tensors:
        part = part_of(tensor.name)
        if part is None or part.layer >= architecture.layers:
            unknown.append(Unknown(tensor.name, tensor.bytes))
        else:
            _add(layers[part.layer], part, tensor, architecture)
    beside = sum(one.bytes for one in unknown)
    split = stages(architecture, layout.pp)
    ends = list(accumulate(stage.layers for stage in split))
    return Exact(
        tensors=len(tensors),
        bytes=sum(tensor.bytes for tensor in tensors),
        stages=tuple(
            _stage(
                stage,
                end - stage.layers,
                layers,
                architecture=architecture,
                layout=layout,
                beside=beside,
            )
            for stage, end in zip(split, ends, strict=True)
        ),
        unknown=tuple(unknown),
        lacks=tuple(_lacks(layers, architecture)),
    )


def _add(layer: _Layer, part: Part, tensor: Tensor, architecture: Architecture) -> None:
    layer.modules.add(part.module)
    match part.cause:
        case "routed experts" if part.expert is not None:
            layer.experts.setdefault(part.expert, [0, 0])[part.whole] += tensor.bytes
        case "routed experts":
            # Why the first dimension: a GGUF's stack holds every expert of the layer in one tensor
            count = tensor.shape[0] if tensor.shape else architecture.experts
            each, left = tensor.bytes // max(count, 1), tensor.bytes
            for expert in range(min(count, architecture.experts)):
                layer.experts.setdefault(expert, [0, 0])[0] += each
                left -= each
            if left:
                layer.experts.setdefault(architecture.experts, [0, 0])[0] += left
        case "other weights":
            layer.sharded += tensor.bytes
        case "replicated":
            layer.replicated += tensor.bytes
        case "vision":
            layer.vision += tensor.bytes


def _stage(
    stage: Stage,
    start: int,
    layers: dict[int, _Layer],
    *,
    architecture: Architecture,
    layout: Layout,
    beside: int,
) -> StageBytes:
    here = [layers[number] for number in range(start, start + stage.layers) if number in layers]
    ends = [FIRST] * stage.first + [LAST] * stage.last
    every = [*here, *(layers[end] for end in ends if end in layers)]
    experts = _expert_ranks(here, architecture.experts, layout)
    a = architecture
    latent = a.kv_lora_rank * a.heads * (a.qk_nope_head_dim + a.v_head_dim) * _ABSORBED_BYTES
    absorbed = latent * sum("kv_b_proj" in layer.modules for layer in here)
    rest = [
        Share(
            "other weights",
            -(-sum(layer.sharded for layer in every) // layout.tp),
            "attention, shared experts, dense layer, embeddings",
        ),
        Share(
            "replicated",
            sum(layer.replicated for layer in every),
            "low-rank projections, norms, router: whole on every rank",
        ),
        Share(
            "absorbed",
            -(-absorbed // layout.tp),
            "copies of W_UK and W_UV that MLA keeps for decoding",
            guess=True,
        ),
    ]
    vision = sum(layer.vision for layer in every)
    if vision:
        rest.append(Share("vision", vision, "whole on every rank: the encoder runs data-parallel"))
    if beside:
        rest.append(Share("unknown", beside, "names that say nothing to us: whole", guess=True))
    common = sum(share.bytes for share in rest)
    return StageBytes(
        first_layer=start,
        layers=stage.layers,
        shares=(Share("routed experts", max(experts)), *rest),
        ranks=tuple(rank + common for rank in experts),
    )


def _expert_ranks(layers: Sequence[_Layer], experts: int, layout: Layout) -> list[int]:
    """Bytes of routed experts, rank by rank of one stage.

    With EP a rank holds whole experts, neighbours together, and the first ranks one more where
    they do not divide (vLLM, expert_map_manager.py); without, a slice of each.
    """
    ranks = layout.tp * layout.dp
    by_expert: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for layer in layers:
        for expert, (divided, whole) in layer.experts.items():
            by_expert[expert][0] += divided
            by_expert[expert][1] += whole
    if not layout.ep:
        divided = sum(pair[0] for pair in by_expert.values())
        return [-(-divided // ranks) + sum(pair[1] for pair in by_expert.values())] * ranks
    each, rest = divmod(experts, ranks)
    bounds = [0, *accumulate(each + (rank < rest) for rank in range(ranks))]
    result = [
        sum(sum(by_expert[expert]) for expert in range(begin, end) if expert in by_expert)
        for begin, end in pairwise(bounds)
    ]
    # Why the last rank: an expert beyond the config's count is told by `lacks`, and not lost here
    result[-1] += sum(sum(pair) for expert, pair in by_expert.items() if expert >= experts)
    return result


def _lacks(layers: dict[int, _Layer], architecture: Architecture) -> Iterator[str]:
    """Yield a sentence for all that the architecture has and the tensors do not show."""
    seen = {module for end in (FIRST, LAST) if end in layers for module in layers[end].modules}
    for module in ("embed_tokens", "lm_head", "norm"):
        if module not in seen:
            yield f"there is no {module}"
    for number in range(architecture.layers):
        if number not in layers:
            yield f"layer {number} is missing"
            continue
        layer = layers[number]
        dense = number < architecture.dense_layers
        wanted = 0 if dense else architecture.experts
        right = sum(expert < architecture.experts for expert in layer.experts)
        if len(layer.experts) != wanted or right != wanted:
            yield f"layer {number} has {len(layer.experts)} routed experts, the config {wanted}"
        if layer.modules & ATTENTION:
            missing = {*ATTENTION, "mlp" if dense else "gate"} - layer.modules
            for module in sorted(missing):
                yield f"layer {number} has no {module}"
