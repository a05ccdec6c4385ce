"""The scripted Kimi as one GGUF file, for llama-server: the same weights under llama.cpp's names.

`write_gguf(path)` leaves a `deepseek2` model with the `kimi-k2` pre-tokenizer and the chat
template inside. See `scripted.py` for what it says and why.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from kimideploy.rehearsal.gguf_format import entry, whole
from tests.judges.scripted import (
    CARRY,
    DENSE,
    EXPERT,
    EXPERTS,
    HEADS,
    HIDDEN,
    KV_RANK,
    LAYERS,
    NOPE,
    Q_RANK,
    ROPE,
    SCRIPTS,
    VALUE,
    Book,
    Script,
    Tensor,
    attention,
    book,
    embedding,
    output,
    space,
    template,
)
from tests.judges.tiny import byte_alphabet, token_ids

NORMAL, CONTROL, UNUSED = 1, 3, 5  # kinds of token
SIGMOID = 2  # the gating function
MOSTLY_F16 = 1  # the file type


@dataclass(frozen=True)
class Stored:
    """A tensor as the file holds it: half precision, or full where llama.cpp wants that."""

    tensor: Tensor
    full: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, the slowest first."""
        return self.tensor.shape

    @property
    def code(self) -> int:
        """The file's number for the type."""
        return 0 if self.full else 1

    def data(self) -> bytes:
        """Return the bytes; every value we use is exact in half precision."""
        kind, size = ("<f", 4) if self.full else ("<e", 2)
        raw = bytearray(struct.pack(kind, self.tensor.fill) * prod(self.tensor.shape))
        for (row, column), value in self.tensor.entries.items():
            at = (row * self.tensor.shape[-1] + column) * size
            raw[at : at + size] = struct.pack(kind, value)
        return bytes(raw)


def vector(length: int, fill: float) -> Stored:
    """Return a vector of one value."""
    return Stored(Tensor((length,), {}, fill), full=True)


def zeros(*shape: int) -> Stored:
    """Return a silent matrix."""
    return Stored(Tensor(shape, {}))


def tensors(tokens: Book) -> dict[str, Stored]:
    """Return every weight by llama.cpp's name."""
    dims = space(tokens)
    cues = range(len(tokens.cues))
    head = {name: Stored(tensor) for name, tensor in attention(tokens, dims).items()}
    # llama.cpp keeps the keys' and the values' half apart, a matrix for each head.
    keys = Tensor((HEADS, KV_RANK, NOPE), {(number, 0): 1.0 for number in cues})
    values = Tensor((HEADS, VALUE, KV_RANK), {(number, number): CARRY for number in cues})
    look = {
        "attn_q_a": head["q_a_proj"],
        "attn_q_b": head["q_b_proj"],
        "attn_kv_a_mqa": head["kv_a_proj_with_mqa"],
        "attn_k_b": Stored(keys),
        "attn_v_b": Stored(values),
        "attn_output": head["o_proj"],
    }
    model = {
        "token_embd.weight": Stored(embedding(tokens, dims)),
        "output_norm.weight": vector(HIDDEN, 1.0),
        "output.weight": Stored(output(tokens, dims)),
    }
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        for name, stored in look.items():
            model[f"{at}{name}.weight"] = zeros(*stored.tensor.shape) if layer else stored
        for name, length in NORMS.items():
            model[f"{at}{name}.weight"] = vector(length, 1.0)
        model |= {f"{at}{name}": stored for name, stored in mlp(layer).items()}
    return model


NORMS = {
    "attn_norm": HIDDEN,
    "ffn_norm": HIDDEN,
    "attn_q_a_norm": Q_RANK,
    "attn_kv_a_norm": KV_RANK,
}


def mlp(layer: int) -> dict[str, Stored]:
    """Return a layer's silent perceptron: dense first, then experts."""
    if layer == 0:
        return {
            "ffn_gate.weight": zeros(DENSE, HIDDEN),
            "ffn_up.weight": zeros(DENSE, HIDDEN),
            "ffn_down.weight": zeros(HIDDEN, DENSE),
        }
    return {
        "ffn_gate_inp.weight": Stored(Tensor((EXPERTS, HIDDEN), {}), full=True),
        "exp_probs_b.bias": vector(EXPERTS, 0.0),
        "ffn_gate_exps.weight": zeros(EXPERTS, EXPERT, HIDDEN),
        "ffn_up_exps.weight": zeros(EXPERTS, EXPERT, HIDDEN),
        "ffn_down_exps.weight": zeros(EXPERTS, HIDDEN, EXPERT),
        "ffn_gate_shexp.weight": zeros(EXPERT, HIDDEN),
        "ffn_up_shexp.weight": zeros(EXPERT, HIDDEN),
        "ffn_down_shexp.weight": zeros(HIDDEN, EXPERT),
    }


def metadata(tokens: Book, scripts: Sequence[Script], context: int) -> list[bytes]:
    """Return what llama.cpp must know of the model."""
    ids = token_ids()
    numbers: dict[str, int] = {
        "block_count": LAYERS,
        "context_length": context,
        "embedding_length": HIDDEN,
        "feed_forward_length": DENSE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": Q_RANK,
        "attention.kv_lora_rank": KV_RANK,
        "attention.key_length": KV_RANK + ROPE,
        "attention.value_length": KV_RANK,
        "attention.key_length_mla": NOPE + ROPE,
        "attention.value_length_mla": VALUE,
        "rope.dimension_count": ROPE,
        "leading_dense_block_count": 1,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_feed_forward_length": EXPERT,
        "expert_gating_func": SIGMOID,
        "vocab_size": tokens.vocabulary_size,
    }
    measures = {
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 50000.0,
        "expert_weights_scale": 2.827,
    }
    words, kinds = vocabulary(tokens)
    return [
        entry("general.architecture", "string", "deepseek2"),
        entry("general.name", "string", "scripted Kimi"),
        entry("general.file_type", "u32", MOSTLY_F16),
        *(entry(f"deepseek2.{key}", "u32", value) for key, value in numbers.items()),
        *(entry(f"deepseek2.{key}", "f32", value) for key, value in measures.items()),
        entry("deepseek2.expert_weights_norm", "bool", value=True),
        entry("tokenizer.ggml.model", "string", "gpt2"),
        entry("tokenizer.ggml.pre", "string", "kimi-k2"),
        entry("tokenizer.ggml.tokens", "string", words),
        entry("tokenizer.ggml.token_type", "i32", kinds),
        entry("tokenizer.ggml.bos_token_id", "u32", ids["[BOS]"]),
        entry("tokenizer.ggml.eos_token_id", "u32", ids["<|im_end|>"]),
        entry("tokenizer.ggml.padding_token_id", "u32", ids["[PAD]"]),
        entry("tokenizer.ggml.add_bos_token", "bool", value=False),
        entry("tokenizer.chat_template", "string", template(scripts)),
    ]


def vocabulary(tokens: Book) -> tuple[list[str], list[int]]:
    """Return every token's text, bytes as printable characters, and its kind."""
    alphabet = byte_alphabet()
    control = {*token_ids(), *tokens.cues}
    words, kinds = list(alphabet), [NORMAL] * len(alphabet)
    for token in sorted(tokens.ids, key=tokens.ids.__getitem__):
        plain = token not in control
        words.append("".join(alphabet[byte] for byte in token.encode()) if plain else token)
        kinds.append(NORMAL if plain else CONTROL)
    for number in range(len(words), tokens.vocabulary_size):
        words.append(f"[unused{number}]")
        kinds.append(UNUSED)
    return words, kinds


def write_gguf(path: Path, scripts: Sequence[Script] = SCRIPTS, context: int = 8192) -> None:
    """Write the model; llama-server says the scripts afterwards."""
    tokens = book(scripts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole(tensors(tokens), metadata(tokens, scripts, context)))
