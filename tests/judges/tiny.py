"""A Kimi-shaped model folder of a few kilobytes, written by the standard library alone.

`write_tiny(folder)` leaves what an engine reads before it reads weights: a `kimi_k2` config of
toy sizes, a byte-level tokenizer that knows Kimi's special tokens, a chat template that keeps the
reasoning of every turn, and the sampling defaults. There are no weights: start the engine with
dummy ones. Same folder, same bytes, every time.
"""

from __future__ import annotations

import json
from pathlib import Path

SPECIAL_TOKENS: tuple[str, ...] = (
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "[PAD]",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|media_begin|>",
    "<|media_content|>",
    "<|media_end|>",
    "<|media_pad|>",
)
"""Kimi's control tokens, numbered after the 256 bytes in this order."""

VOCABULARY_SIZE = 320
"""Bytes and control tokens, rounded up to a multiple of 64."""

CONTEXT = 4096
"""The longest request the tiny model says it takes."""

# The generation prompt opens <think>, and every earlier turn shows its reasoning again: the
# contract of K2.7-Code, in our own words.
CHAT_TEMPLATE = """\
{%- macro words(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content -%}{%- for part in content -%}
{%- if part['type'] == 'text' -%}{{ part['text'] }}
{%- else -%}<|media_begin|>image<|media_content|><|media_pad|><|media_end|>{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>
{%- endif -%}
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
<|im_assistant|>assistant<|im_middle|>
{{- '<think>' ~ (m.get('reasoning_content') or m.get('reasoning') or '') ~ '</think>' -}}
{{- words(m.get('content')) -}}
{%- if m.get('tool_calls') -%}
<|tool_calls_section_begin|>
{%- for call in m['tool_calls'] -%}
{%- set arguments = call['function']['arguments'] -%}
<|tool_call_begin|>{{ call['id'] }}<|tool_call_argument_begin|>
{{- arguments if arguments is string else arguments | tojson -}}
<|tool_call_end|>
{%- endfor -%}
<|tool_calls_section_end|>
{%- endif -%}
<|im_end|>
{%- elif m['role'] == 'tool' -%}
<|im_system|>tool<|im_middle|>## Return of {{ m.get('tool_call_id', '') }}
{{ words(m['content']) }}<|im_end|>
{%- elif m['role'] == 'user' -%}
<|im_user|>user<|im_middle|>{{ words(m['content']) }}<|im_end|>
{%- else -%}
<|im_system|>system<|im_middle|>{{ words(m['content']) }}<|im_end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_assistant|>assistant<|im_middle|><think>
{%- endif -%}
"""


def byte_alphabet() -> list[str]:
    """Return the printable character that stands for each byte, at that byte's index.

    The byte-level convention: printable bytes stand for themselves, each other byte takes the
    next free code point from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    free = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(free)) for byte in range(256)]


def token_ids() -> dict[str, int]:
    """Return the id of every special token."""
    return {token: 256 + i for i, token in enumerate(SPECIAL_TOKENS)}


def model_config() -> dict[str, object]:
    """Return a `config.json` with Kimi's architecture at toy sizes."""
    ids = token_ids()
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "kimi_k2",
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "q_lora_rank": 128,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 512,
        "moe_intermediate_size": 64,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.827,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 50000.0,
        "max_position_embeddings": CONTEXT,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": ids["[BOS]"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["[PAD]"],
    }


def tokenizer() -> dict[str, object]:
    """Return a `tokenizer.json`: one token per byte, no merges, and the special tokens."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, number in token_ids().items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(byte_alphabet())}
            | token_ids(),
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, object]:
    """Return a `tokenizer_config.json` that ends a turn at `<|im_end|>`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "[BOS]",
        "eos_token": "<|im_end|>",
        "pad_token": "[PAD]",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }


def generation_config() -> dict[str, object]:
    """Return the sampling defaults of the family's thinking models."""
    ids = token_ids()
    return {
        "bos_token_id": ids["[BOS]"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["[PAD]"],
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 0.95,
    }


def write_tiny(folder: Path) -> None:
    """Write the five files; `folder` exists afterwards and an engine can load it."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": model_config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(),
        "generation_config.json": generation_config(),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
