"""The nano Kimi as one GGUF file, for llama-server: the same weights under llama.cpp's names.

A `deepseek2` model with the `kimi-k2` pre-tokenizer and the chat template inside, as conversions of
the real model are. Written by the standard library, from the safetensors that come along.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kimideploy.files import write_whole
from kimideploy.rehearsal import nano
from kimideploy.rehearsal.gguf_format import entry, whole

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # kinds of token
_SIGMOID = 2  # the gating function
_MOSTLY_BF16 = 32  # the file type
_F32, _BF16 = 0, 30  # types of a tensor

#: our names of a layer's tensors → llama.cpp's; `{e}` gathers all experts in one
_ATTENTION = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.o_proj": "attn_output",
}
_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
}
_GATED = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A bfloat16 tensor, row after row; `full` asks for float32 in the file."""

    shape: tuple[int, ...]
    raw: bytes
    full: bool = False

    @property
    def code(self) -> int:
        """The file's number for the type."""
        return _F32 if self.full else _BF16

    def data(self) -> bytes:
        """Return the bytes as the file holds them; a bfloat16 is the upper half of a float32."""
        if not self.full:
            return self.raw
        halves = array("H", self.raw)
        wide = array("H", bytes(2 * len(self.raw)))
        wide[1::2] = halves
        return wide.tobytes()


def write_gguf(path: Path) -> None:
    """Write the nano Kimi to *path*: 4 MB. The folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config = nano.document("config.json")
    weights = dict(_named(_read(nano.weights()), config))
    write_whole(path, whole(weights, _metadata(config)))


def _read(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file whose numbers are bfloat16."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        if about["dtype"] != "BF16":
            raise ValueError(f"{name} is {about['dtype']}, not BF16")
        raw = data[8 + size + begin : 8 + size + end]
        found[name] = Tensor(tuple(about["shape"]), raw)
    return found


def _named(given: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor by llama.cpp's name."""
    yield "token_embd.weight", given["model.embed_tokens.weight"]
    yield "output_norm.weight", _full(given["model.norm.weight"])
    yield "output.weight", given["lm_head.weight"]
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        for name, theirs_name in _NORMS.items():
            yield f"{theirs}{theirs_name}.weight", _full(given[f"{ours}{name}.weight"])
        for name, theirs_name in _ATTENTION.items():
            yield f"{theirs}{theirs_name}.weight", given[f"{ours}{name}.weight"]
        keys, values = _halves(given[f"{ours}self_attn.kv_b_proj.weight"], config)
        yield f"{theirs}attn_k_b.weight", keys
        yield f"{theirs}attn_v_b.weight", values
        if layer < config["first_k_dense_replace"]:
            for name, theirs_name in _GATED.items():
                yield f"{theirs}{theirs_name}.weight", given[f"{ours}mlp.{name}.weight"]
            continue
        yield f"{theirs}ffn_gate_inp.weight", _full(given[f"{ours}mlp.gate.weight"])
        bias = given[f"{ours}mlp.gate.e_score_correction_bias"]
        yield f"{theirs}exp_probs_b.bias", _full(bias)
        for name, theirs_name in _GATED.items():
            experts = [
                given[f"{ours}mlp.experts.{number}.{name}.weight"]
                for number in range(config["n_routed_experts"])
            ]
            shape = (len(experts), *experts[0].shape)
            stacked = Tensor(shape, b"".join(one.raw for one in experts))
            yield f"{theirs}{theirs_name}_exps.weight", stacked
            shared = given[f"{ours}mlp.shared_experts.{name}.weight"]
            yield f"{theirs}{theirs_name}_shexp.weight", shared


def _full(tensor: Tensor) -> Tensor:
    return Tensor(tensor.shape, tensor.raw, full=True)


def _halves(joint: Tensor, config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return keys, turned over, and values: llama.cpp keeps them apart, a matrix for each head."""
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    nope, wide = config["qk_nope_head_dim"], config["v_head_dim"]
    numbers = array("H", joint.raw)
    keys, values = array("H"), array("H")
    for head in range(heads):
        begin = head * (nope + wide) * rank
        block = numbers[begin : begin + nope * rank]
        for column in range(rank):
            keys.extend(block[column::rank])
        values.extend(numbers[begin + nope * rank : begin + (nope + wide) * rank])
    return (
        Tensor((heads, rank, nope), keys.tobytes()),
        Tensor((heads, wide, rank), values.tobytes()),
    )


def _metadata(config: Mapping[str, Any]) -> list[bytes]:
    """Return what llama.cpp must know of the model."""
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    numbers: dict[str, int] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": config["q_lora_rank"],
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "rope.dimension_count": rope,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_gating_func": _SIGMOID,
        "vocab_size": config["vocab_size"],
    }
    measures = {
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "expert_weights_scale": config["routed_scaling_factor"],
    }
    tokenizer = nano.document("tokenizer.json")
    words, kinds = _vocabulary(tokenizer, config["vocab_size"])
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    return [
        entry("general.architecture", "string", "deepseek2"),
        entry("general.name", "string", "nano Kimi"),
        entry("general.file_type", "u32", _MOSTLY_BF16),
        *(entry(f"deepseek2.{key}", "u32", value) for key, value in numbers.items()),
        *(entry(f"deepseek2.{key}", "f32", value) for key, value in measures.items()),
        entry("deepseek2.expert_weights_norm", "bool", config["norm_topk_prob"]),
        entry("tokenizer.ggml.model", "string", "gpt2"),
        entry("tokenizer.ggml.pre", "string", "kimi-k2"),
        entry("tokenizer.ggml.tokens", "string", words),
        entry("tokenizer.ggml.token_type", "i32", kinds),
        entry("tokenizer.ggml.merges", "string", merges),
        entry("tokenizer.ggml.bos_token_id", "u32", config["bos_token_id"]),
        entry("tokenizer.ggml.eos_token_id", "u32", config["eos_token_id"]),
        entry("tokenizer.ggml.padding_token_id", "u32", config["pad_token_id"]),
        entry("tokenizer.ggml.add_bos_token", "bool", value=False),
        entry("tokenizer.chat_template", "string", nano.template()),
    ]


def _vocabulary(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return every token's text, bytes as printable characters, and its kind."""
    words = [f"[unused{number}]" for number in range(size)]
    kinds = [_UNUSED] * size
    for word, number in tokenizer["model"]["vocab"].items():
        words[number], kinds[number] = word, _NORMAL
    for token in tokenizer["added_tokens"]:
        words[token["id"]], kinds[token["id"]] = token["content"], _CONTROL
    return words, kinds
