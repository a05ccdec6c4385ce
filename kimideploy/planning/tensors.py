"""What a tensor's name says: the part of the model it is, and whether ranks share or repeat it.

The names are those of the repositories of K2 and of its descendants, with and without the
prefix of the multimodal ones, NVIDIA's and AMD's conversions among them, and llama.cpp's own.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Cause = Literal["routed experts", "other weights", "replicated", "vision"]
#: in place of a layer's number: what stands before the first layer, and after the last
FIRST, LAST = -1, -2


class Tensor(NamedTuple):
    """One tensor as a header states it; `bytes` is what it takes in `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str = ""


class Part(NamedTuple):
    """Where a tensor belongs: `layer` or FIRST or LAST; `whole` is never divided over TP."""

    cause: Cause
    layer: int
    module: str
    expert: int | None = None
    whole: bool = False


_STORED = (
    r"(?:weight|bias|weight_packed|weight_scale|weight_scale_inv|weight_zero_point|weight_g_idx"
    r"|(?P<whole>weight_shape|weight_scale_2|weight_global_scale|input_global_scale|input_scale))"
)
_LAYER = re.compile(r"(?:language_model\.)?(?:model\.)?layers\.(\d{1,6})\.(.+)", re.ASCII)
_GGUF_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)", re.ASCII)
_Kinds = tuple[tuple[Cause, str], ...]
#: patterns of what follows a layer's number
_IN_LAYER: _Kinds = (
    (
        "routed experts",
        rf"mlp\.(?P<module>experts)\.(?P<expert>\d{{1,6}})\.(?:gate|up|down)_proj\.{_STORED}",
    ),
    ("other weights", rf"mlp\.(?P<module>shared_experts)\.(?:gate|up|down)_proj\.{_STORED}"),
    ("other weights", rf"(?P<module>mlp)\.(?:gate|up|down)_proj\.{_STORED}"),
    ("other weights", rf"self_attn\.(?P<module>q_b_proj|kv_b_proj|o_proj)\.{_STORED}"),
    ("replicated", rf"self_attn\.(?P<module>q_a_proj|kv_a_proj_with_mqa)\.{_STORED}"),
    ("replicated", r"mlp\.(?P<module>gate)\.(?:weight|e_score_correction_bias)"),
    ("replicated", r"(?:self_attn\.)?(?P<module>\w+_(?:layer)?norm)\.(?:weight|bias)"),
    ("replicated", r"self_attn\.(?:\w+\.)?(?P<module>[kv]_scale|inv_freq)"),
)
_IN_GGUF_LAYER: _Kinds = (
    ("routed experts", r"ffn_(?:gate|up|down|gate_up)_(?P<module>exps)\.(?:weight|scale)"),
    ("replicated", r"(?P<module>ffn_gate_inp|exp_probs_b|\w+_norm)\.(?:weight|bias)"),
    ("replicated", r"(?P<module>attn_q_a|attn_kv_a_mqa)\.weight"),
    ("other weights", r"(?P<module>ffn_(?:gate|up|down)(?:_shexp)?)\.(?:weight|scale)"),
    ("other weights", r"(?P<module>attn_(?:q_b|kv_b|k_b|v_b|output))\.weight"),
)
_ENDS: tuple[tuple[str, Part], ...] = (
    (
        r"(?:language_model\.)?(?:model\.)?embed_tokens\.weight|token_embd\.weight",
        Part("other weights", FIRST, "embed_tokens"),
    ),
    (
        r"(?:language_model\.)?lm_head\.weight|output\.weight",
        Part("other weights", LAST, "lm_head"),
    ),
    (
        r"(?:language_model\.)?(?:model\.)?norm\.weight|output_norm\.weight",
        Part("replicated", LAST, "norm"),
    ),
    (r"rope_freqs\.weight", Part("replicated", FIRST, "rope_freqs")),
    (
        r"(?:model\.)?(?:vision_tower|mm_projector)\..+|(?:v|mm)\..+",
        Part("vision", FIRST, "vision"),
    ),
)


def part_of(name: str) -> Part | None:
    """Return where the tensor *name* belongs, None for a name that says nothing to us."""
    for layers, kinds in ((_LAYER, _IN_LAYER), (_GGUF_LAYER, _IN_GGUF_LAYER)):
        found = layers.fullmatch(name)
        if found is not None:
            return _in_layer(int(found[1]), found[2], kinds)
    return next((part for pattern, part in _ENDS if re.fullmatch(pattern, name, re.ASCII)), None)


def _in_layer(layer: int, rest: str, kinds: _Kinds) -> Part | None:
    for cause, pattern in kinds:
        found = re.fullmatch(pattern, rest, re.ASCII)
        if found is not None:
            groups = found.groupdict()
            expert = groups.get("expert")
            return Part(
                cause,
                layer,
                found["module"],
                expert=int(expert) if expert is not None else None,
                whole=groups.get("whole") is not None,
            )
    return None
