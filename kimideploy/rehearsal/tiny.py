"""A tiny checkpoint of the Kimi architecture, written without weights.

Real engines load it with `--load-format dummy`: random weights, real code paths. The tokenizer
is byte-level with Kimi's special tokens; the chat template keeps the reasoning of every turn, as
the real one of Kimi K2.7-Code does, in our own words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kimideploy.files import write_whole

#: Kimi's special tokens (tokenizer_config.json of the family), with ids of our own
SPECIAL = (
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
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
)
BOS, EOS, END, PAD = 0, 1, 2, 7
#: bytes and special tokens, rounded up to a multiple of 64
VOCABULARY = 320
CONTEXT = 8192

TEMPLATE = """\
{%- if tools -%}
<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|im_assistant|>assistant<|im_middle|><think>
{{- message.get('reasoning_content') or message.get('reasoning') or '' -}}
</think>{{ message.get('content') or '' }}
{%- if message.get('tool_calls') -%}
<|tool_calls_section_begin|>
{%- for call in message['tool_calls'] -%}
<|tool_call_begin|>{{ call['id'] }}<|tool_call_argument_begin|>
{%- if call['function']['arguments'] is string -%}
{{ call['function']['arguments'] }}
{%- else -%}
{{ call['function']['arguments'] | tojson }}
{%- endif -%}
<|tool_call_end|>
{%- endfor -%}
<|tool_calls_section_end|>
{%- endif -%}
<|im_end|>
{%- elif message['role'] == 'tool' -%}
<|im_system|>tool<|im_middle|>{{ message.get('tool_call_id', '') }} gave
{{ message['content'] }}<|im_end|>
{%- elif message['role'] == 'user' -%}
<|im_user|>user<|im_middle|>{{ message['content'] }}<|im_end|>
{%- else -%}
<|im_system|>system<|im_middle|>{{ message['content'] }}<|im_end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_assistant|>assistant<|im_middle|><think>
{%- endif -%}
"""


def write_tiny(folder: Path) -> None:
    """Write the checkpoint's files into *folder*, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _files().items():
        write_whole(folder / name, text.encode())


def is_written(folder: Path) -> bool:
    """Return whether the checkpoint's files are in *folder*, as this version writes them."""
    try:
        return all(
            (folder / name).read_text(encoding="utf-8") == text for name, text in _files().items()
        )
    except (OSError, UnicodeDecodeError):
        return False


def _files() -> dict[str, str]:
    """Name → text of each file."""
    values: dict[str, Any] = {
        "config.json": _config(),
        "generation_config.json": {
            "bos_token_id": BOS,
            "eos_token_id": END,
            "pad_token_id": PAD,
            "temperature": 1.0,
            "top_p": 0.95,
        },
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "[BOS]",
            "eos_token": "<|im_end|>",
            "pad_token": "[PAD]",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    }
    files = {
        name: json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        for name, value in values.items()
    }
    return files | {"chat_template.jinja": TEMPLATE}


def _config() -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "kimi_k2",
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "n_routed_experts": 16,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 64,
        "intermediate_size": 256,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": 64,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "max_position_embeddings": CONTEXT,
        "rope_theta": 50000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "routed_scaling_factor": 2.827,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "bos_token_id": BOS,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
    }


def _tokenizer() -> dict[str, Any]:
    """A byte-level tokenizer without merges: every byte is a token."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL)}
    for symbol in _alphabet():
        vocabulary[symbol] = len(vocabulary)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                # Why: the parsers look for these two in the text, which leaves special ones out.
                "special": token not in ("<think>", "</think>") and "tool_call" not in token,
            }
            for index, token in enumerate(SPECIAL)
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
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _alphabet() -> list[str]:
    """The 256 symbols byte-level tokenizers write bytes with (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    for offset, byte in enumerate(others):
        table[byte] = chr(0x100 + offset)
    return [table[byte] for byte in range(256)]
