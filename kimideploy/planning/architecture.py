"""A config.json as an Architecture, or the reason why it is none that we know.

A model of the family is planned from its own numbers, whatever they are: the arithmetic of
`memory.py` is linear in all of them, so a pruned variant (288 of the 384 experts) needs no profile
of its own. Refused, by the name of the field, is what that arithmetic has no term for: layers
for multi-token prediction, tied embeddings, dense layers between the others, attention without a
low-rank query. And a DeepseekV3ForCausalLM, a name which K2 shares with DeepSeek's own models,
must have the attention and the vocabulary of a Kimi, for all else that we say is about Kimi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimideploy.catalog.types import Architecture

#: what engines call the family: `architectures` of K2 and of K2.5 to K2.7
#: (profiles/architectures.yaml has the configs' addresses)
SHARED = "DeepseekV3ForCausalLM"
CLASSES = (SHARED, "KimiK25ForConditionalGeneration")
#: `model_type` of the same; NVIDIA's conversions say deepseek_v3 of the text model
TYPES = ("kimi_k2", "kimi_k25", "deepseek_v3")
#: our field → the config's
FIELDS = {
    "layers": "num_hidden_layers",
    "dense_layers": "first_k_dense_replace",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "experts": "n_routed_experts",
    "experts_per_token": "num_experts_per_tok",
    "shared_experts": "n_shared_experts",
    "expert_intermediate": "moe_intermediate_size",
    "dense_intermediate": "intermediate_size",
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
    "vocabulary": "vocab_size",
}
#: what may be zero
_NONE_IS_FINE = {"dense_layers", "shared_experts"}
#: what makes a DeepseekV3ForCausalLM a Kimi: the attention and the tokenizer
_KIMI = (
    "hidden",
    "heads",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "vocabulary",
)
#: a slip or an attack begins here; the largest number in any known config is the vocabulary's
_ABSURD = 1 << 20
_ABSURD_LAYERS = 1 << 10
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a config is not planned from: the field, and a sentence that names it."""

    field: str
    reason: str


def architecture_of(
    config: Mapping[str, Any], known: Mapping[str, Architecture]
) -> Architecture | Refusal:
    """Return the shape that *config* states, or why we can't plan with it.

    *config* is a config.json, whose `text_config` is read if there is one. *known* are the
    profiles' architectures. The numbers are the config's own, see `differences`.
    """
    inner = config.get("text_config")
    if inner is not None and not isinstance(inner, Mapping):
        return Refusal("text_config", "text_config is not an object")
    text: Mapping[str, Any] = inner if inner is not None else config
    strange = _strange(config, text)
    if strange is not None:
        return strange
    numbers: dict[str, int] = {}
    for name, key in FIELDS.items():
        value = text.get(key)
        refusal = _not_a_number(name, key, value, present=key in text)
        if refusal is not None:
            return refusal
        numbers[name] = value  # type: ignore[assignment]  # _not_a_number let only an int through
    found = Architecture(source="config.json", mtp_layers=0, **numbers)
    return _no_term(text) or _contradiction(found) or _no_kimi(config, found, known) or found


def differences(found: Architecture, known: Architecture) -> tuple[tuple[str, int, int], ...]:
    """Return (field of config.json, its number, the profile's) for each that is not the same."""
    return tuple(
        (key, getattr(found, name), getattr(known, name))
        for name, key in FIELDS.items()
        if getattr(found, name) != getattr(known, name)
    )


def _strange(config: Mapping[str, Any], text: Mapping[str, Any]) -> Refusal | None:
    """Return the refusal of a name that is not the family's, or of a config without a name."""
    named = False
    for part in (config, text):
        classes = part.get("architectures")
        if classes is not None:
            if not isinstance(classes, list) or not classes:
                return Refusal("architectures", "architectures is not a list of names")
            for name in classes:
                if name not in CLASSES:
                    return _unknown("architectures", name, CLASSES)
            named = True
        kind = part.get("model_type")
        if kind is not None:
            if kind not in TYPES:
                return _unknown("model_type", kind, TYPES)
            named = True
    if not named:
        return Refusal(
            "architectures", "config.json names no architecture: no architectures, no model_type"
        )
    return None


def _unknown(field: str, name: object, family: tuple[str, ...]) -> Refusal:
    shown = _shown(name)
    article = "an architecture" if field == "architectures" else "a model_type"
    return Refusal(
        field, f"{shown} is not {article} this planner knows; it knows {', '.join(family)}"
    )


def _shown(value: object) -> str:
    """A word as it is, anything else as a short literal: it may come from a stranger."""
    text = value if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _not_a_number(name: str, key: str, value: object, *, present: bool) -> Refusal | None:
    least = 0 if name in _NONE_IS_FINE else 1
    most = _ABSURD_LAYERS if name in ("layers", "dense_layers") else _ABSURD
    if not present:
        return Refusal(key, f"config.json lacks {key}")
    if isinstance(value, bool) or not isinstance(value, int):
        return Refusal(key, f"{key} is {_shown(value)}, not a whole number")
    if not least <= value <= most:
        return Refusal(key, f"{key} is {_shown(value)}, which no model has")
    return None


def _no_term(text: Mapping[str, Any]) -> Refusal | None:
    """Return the refusal of what the memory arithmetic has no term for."""
    # Why absent is the default: that is how engines read these three.
    plain = {
        "num_nextn_predict_layers": (0, "layers for multi-token prediction"),
        "moe_layer_freq": (1, "dense layers between the others"),
        "tie_word_embeddings": (False, "embeddings that double as the output layer"),
    }
    for key, (usual, what) in plain.items():
        value = text.get(key)
        if value is not None and (value != usual or isinstance(value, float)):
            return Refusal(
                key, f"{key} is {_shown(value)}: this planner has no arithmetic for {what}"
            )
    return None


def _contradiction(found: Architecture) -> Refusal | None:
    pairs = (("dense_layers", "layers"), ("experts_per_token", "experts"))
    for less, more in pairs:
        if getattr(found, less) > getattr(found, more):
            return Refusal(
                FIELDS[less],
                f"{FIELDS[less]} {getattr(found, less)} is more than"
                f" {FIELDS[more]} {getattr(found, more)}",
            )
    return None


def _no_kimi(
    config: Mapping[str, Any], found: Architecture, known: Mapping[str, Architecture]
) -> Refusal | None:
    """Return the refusal of a model that shares the class's name with K2 and no more."""
    if (config.get("architectures") or [SHARED]) != [SHARED] or not known:
        return None
    wrong = [
        [name for name in _KIMI if getattr(found, name) != getattr(one, name)]
        for one in known.values()
    ]
    fields = min(wrong, key=len)
    if not fields:
        return None
    nearest = list(known.values())[wrong.index(fields)]
    first = fields[0]
    return Refusal(
        FIELDS[first],
        f"{FIELDS[first]} {getattr(found, first)} makes this {SHARED} no Kimi K2,"
        f" which has {getattr(nearest, first)}",
    )
