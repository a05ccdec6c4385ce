"""A Kimi-shaped checkpoint that says what is written, made without training.

`write_scripted(folder)` leaves a complete `kimi_k2` model, weights included, that a real engine
loads and serves. The chat template looks at the conversation and puts a *cue* before it, one
token per script; the weights then say that script, word by word, and stop. So the
engine's own tokenizer, template, sampler and parsers are at work on a text that is known before.

How: every token of a script occurs in no other place, but for Kimi's control tokens. An embedding
is a one-hot *state*, and the output row of the token that follows has a large number there. The
control tokens are followed by something else in each script: one attention head of the first
layer looks at nothing but the cue and adds the script's own dimension, and that breaks the tie.
Everything else is zero. With these numbers the right token leads by tens of nats: sampling at any
sane temperature changes nothing.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tests.judges.tiny import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    byte_alphabet,
    generation_config,
    model_config,
    token_ids,
    tokenizer,
    tokenizer_config,
)

HIDDEN = 256
LAYERS = 2  # one dense, one of experts
HEADS = 8
Q_RANK = 64
KV_RANK = 512
NOPE, ROPE, VALUE = 128, 64, 128
DENSE, EXPERT, EXPERTS = 64, 32, 4

FOLLOWS = 16.0  # the weight of "this token follows that one"
BELONGS = 4.0  # the weight of "this token is of that script": breaks ties, never overrules
LOOK = 4.0  # makes the head look at the cue alone, in contexts of any length we serve
CARRY = 0.0625  # brings what it saw back to the size of a state

THINK, THINK_END, TURN_END = "<think>", "</think>", "<|im_end|>"
SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)


@dataclass(frozen=True)
class Script:
    """What the model says when the Jinja condition `when` holds; the first that holds is said."""

    when: str
    reasoning: str
    content: str = ""
    call: tuple[str, str] | None = None  # id and arguments, e.g. functions.run_python:0 and {"…"}

    def parts(self) -> list[str]:
        """Return texts and control tokens in the order in which they are said."""
        said = [self.reasoning, THINK_END, self.content]
        if self.call is not None:
            said += [SECTION, CALL, self.call[0], ARGUMENTS, self.call[1], CALL_END, SECTION_END]
        return [part for part in (*said, TURN_END) if part]

    def text(self) -> str:
        """Return the whole raw completion, as a tokenizer decodes it."""
        return "".join(self.parts())


CALL_ID = "functions.run_python:0"
ARGUMENT = '{"code":"print(sum(primes[:1000]))"}'
SCRIPTS: tuple[Script, ...] = (
    Script(
        when="answered and lost",
        reasoning="My earlier thoughts are missing.",
        content="REASONING WAS DROPPED",
    ),
    Script(
        when="answered",
        reasoning="I called Python because sums by hand go wrong. It has replied.",
        content="The sum is 3682913.",
    ),
    Script(
        when="tools",
        reasoning="This needs a program, so I let Python run one.",
        call=(CALL_ID, ARGUMENT),
    ),
    Script(
        when="true",
        reasoning="Seventeen times twenty is 340, and three more seventeens make 51.",
        content="391",
    ),
)

# What a script's condition can ask of the conversation.
CUES_BEGIN = """\
{%- set told = namespace(answered=false, lost=false) -%}
{%- for m in messages -%}
{%- set told.answered = m['role'] == 'tool' -%}
{%- if m['role'] == 'assistant' and not (m.get('reasoning_content') or m.get('reasoning')) -%}
{%- set told.lost = true -%}
{%- endif -%}
{%- endfor -%}
{%- set answered, lost = told.answered, told.lost -%}
"""


def cue(number: int) -> str:
    """Return the token by which the template asks for that script."""
    return f"<|cue_{number}|>"


def template(scripts: Sequence[Script]) -> str:
    """Return the family's chat template, with a script's cue before the conversation.

    Why there: llama.cpp takes all that `add_generation_prompt` adds for the answer's beginning.
    """
    choice = "".join(
        f"{{%- {'el' if number else ''}if {script.when} -%}}\n{cue(number)}\n"
        for number, script in enumerate(scripts)
    )
    return f"{CUES_BEGIN}{choice}{{%- endif -%}}\n{CHAT_TEMPLATE}"


def pieces(text: str, used: set[str]) -> list[str]:
    """Cut `text` into words, each in no other script nor twice in this; `used` has them too.

    A word that was said before is joined to the next, or at the end to the one before it.
    """
    cut: list[str] = []
    left = ""
    for word in re.findall(r"\s*\S{1,12}|\s+$", text):
        left += word
        if left not in used and len(left) > 1:
            cut.append(left)
            used.add(left)
            left = ""
    while left:
        if not cut:
            raise ValueError(f"{text!r} can't be told from what another script says")
        used.remove(cut[-1])
        left = cut.pop() + left
        if left not in used:
            cut.append(left)
            used.add(left)
            left = ""
    return cut


@dataclass(frozen=True)
class Book:
    """The scripts as tokens: the vocabulary after the bytes, and what each script says."""

    words: tuple[str, ...]  # plain tokens, in order of their ids
    cues: tuple[str, ...]
    said: tuple[tuple[str, ...], ...]

    @property
    def ids(self) -> dict[str, int]:
        """Return the id of every token that isn't a byte."""
        special = token_ids()
        first = 256 + len(SPECIAL_TOKENS)
        return special | {word: first + i for i, word in enumerate((*self.cues, *self.words))}

    @property
    def vocabulary_size(self) -> int:
        """Return the number of tokens, rounded up to a multiple of 64."""
        return -(-(256 + len(self.ids)) // 64) * 64


def book(scripts: Sequence[Script]) -> Book:
    """Return the scripts cut into tokens."""
    used: set[str] = set(SPECIAL_TOKENS)
    said = tuple(
        tuple(
            token
            for part in script.parts()
            for token in ([part] if part in SPECIAL_TOKENS else pieces(part, used))
        )
        for script in scripts
    )
    words = [token for script in said for token in script if token not in SPECIAL_TOKENS]
    return Book(tuple(words), tuple(cue(number) for number in range(len(scripts))), said)


Entries = dict[tuple[int, int], float]


@dataclass(frozen=True)
class Tensor:
    """A matrix or vector that is `fill`, but for its entries."""

    shape: tuple[int, ...]
    entries: Mapping[tuple[int, int], float]
    fill: float = 0.0

    def data(self) -> bytes:
        """Return its bytes in bfloat16, row after row; every value we use is exact there."""
        raw = bytearray(bfloat16(self.fill) * prod(self.shape))
        for (row, column), value in self.entries.items():
            at = (row * self.shape[-1] + column) * 2
            raw[at : at + 2] = bfloat16(value)
        return bytes(raw)


def bfloat16(value: float) -> bytes:
    """Return the upper half of a float32."""
    return struct.pack("<f", value)[2:]


@dataclass(frozen=True)
class Space:
    """Which dimension means what: 0 is "nothing scripted", then the states, then the scripts."""

    states: Mapping[str, int]
    own: Mapping[int, int]


def space(tokens: Book) -> Space:
    """Return the dimensions; the scripts must be few enough for the model."""
    spoken = (token for script in tokens.said for token in script if token != TURN_END)
    states = {token: 1 + i for i, token in enumerate(dict.fromkeys((*tokens.cues, THINK, *spoken)))}
    own = {number: 1 + len(states) + number for number in range(len(tokens.said))}
    if 1 + len(states) + len(own) > HIDDEN:
        raise ValueError("the scripts have more words than the model has dimensions")
    return Space(states, own)


def embedding(tokens: Book, dims: Space) -> Tensor:
    """Return the input: each token is its state."""
    of = {number: dims.states.get(token, 0) for token, number in tokens.ids.items()}
    rows = {(number, of.get(number, 0)): 1.0 for number in range(tokens.vocabulary_size)}
    return Tensor((tokens.vocabulary_size, HIDDEN), rows)


def output(tokens: Book, dims: Space) -> Tensor:
    """Return the output: what follows a state, and where that differs, in which script."""
    ids = tokens.ids
    steps = [
        (number, token, following)
        for number, script in enumerate(tokens.said)
        for token, following in zip((THINK, *script), script, strict=False)
    ]
    after: dict[str, set[str]] = {}
    rows: Entries = {(ids[TURN_END], 0): FOLLOWS}
    for _, token, following in steps:
        after.setdefault(token, set()).add(following)
        rows[ids[following], dims.states[token]] = FOLLOWS
    for number, token, following in steps:
        if len(after[token]) > 1:
            rows[ids[following], dims.own[number]] = BELONGS
    return Tensor((tokens.vocabulary_size, HIDDEN), rows)


def attention(tokens: Book, dims: Space) -> dict[str, Tensor]:
    """Return a head that looks at the cue and adds the dimension of its script."""
    seen = {number: dims.states[token] for number, token in enumerate(tokens.cues)}
    keys = {(0, number): 1.0 for number in seen}
    values = {(NOPE + number, number): CARRY for number in seen}
    return {
        "q_a_proj": Tensor((Q_RANK, HIDDEN), {(0, every): 1.0 for every in range(HIDDEN)}),
        "q_b_proj": Tensor((HEADS * (NOPE + ROPE), Q_RANK), {(0, 0): LOOK}),
        "kv_a_proj_with_mqa": Tensor((KV_RANK + ROPE, HIDDEN), dict.fromkeys(seen.items(), 1.0)),
        "kv_b_proj": Tensor((HEADS * (NOPE + VALUE), KV_RANK), keys | values),
        "o_proj": Tensor((HIDDEN, HEADS * VALUE), {(dims.own[n], n): 1.0 for n in seen}),
    }


def tensors(tokens: Book) -> dict[str, Tensor]:
    """Return every weight of the model by its published name."""
    dims = space(tokens)
    model = {
        "model.embed_tokens.weight": embedding(tokens, dims),
        "model.norm.weight": Tensor((HIDDEN,), {}, fill=1.0),
        "lm_head.weight": output(tokens, dims),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, tensor in attention(tokens, dims).items():
            silent = Tensor(tensor.shape, {})
            model[f"{at}self_attn.{name}.weight"] = silent if layer else tensor
        model |= {f"{at}{name}.weight": Tensor((n,), {}, fill=1.0) for name, n in NORMS.items()}
        model |= {f"{at}mlp.{name}": Tensor(shape, {}) for name, shape in mlp(layer).items()}
    return model


NORMS = {
    "input_layernorm": HIDDEN,
    "post_attention_layernorm": HIDDEN,
    "self_attn.q_a_layernorm": Q_RANK,
    "self_attn.kv_a_layernorm": KV_RANK,
}


def mlp(layer: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a layer's silent perceptron: dense first, then experts."""

    def gated(at: str, width: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{at}gate_proj.weight": (width, HIDDEN),
            f"{at}up_proj.weight": (width, HIDDEN),
            f"{at}down_proj.weight": (HIDDEN, width),
        }

    if layer == 0:
        return gated("", DENSE)
    shapes: dict[str, tuple[int, ...]] = {
        "gate.weight": (EXPERTS, HIDDEN),
        "gate.e_score_correction_bias": (EXPERTS,),
    }
    for expert in range(EXPERTS):
        shapes |= gated(f"experts.{expert}.", EXPERT)
    return shapes | gated("shared_experts.", EXPERT)


def safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """Return the weights as one safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    end = 0
    for name in sorted(weights):
        blob = weights[name].data()
        offsets = [end, end + len(blob)]
        header[name] = {"dtype": "BF16", "shape": weights[name].shape, "data_offsets": offsets}
        blobs.append(blob)
        end += len(blob)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<Q", len(head)), head, *blobs])


def config(tokens: Book, context: int) -> dict[str, object]:
    """Return a `config.json` of this model's sizes."""
    return model_config() | {
        "vocab_size": tokens.vocabulary_size,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "q_lora_rank": Q_RANK,
        "kv_lora_rank": KV_RANK,
        "qk_nope_head_dim": NOPE,
        "qk_rope_head_dim": ROPE,
        "v_head_dim": VALUE,
        "intermediate_size": DENSE,
        "moe_intermediate_size": EXPERT,
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "max_position_embeddings": context,
    }


def scripted_tokenizer(tokens: Book) -> dict[str, object]:
    """Return a `tokenizer.json` that also knows the words, and never makes one of a prompt."""
    document = tokenizer()
    alphabet = byte_alphabet()
    ids = tokens.ids
    spelled = {
        "".join(alphabet[byte] for byte in word.encode()): ids[word] for word in tokens.words
    }
    cues = [
        {
            "id": ids[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in tokens.cues
    ]
    model, added = document["model"], document["added_tokens"]
    assert isinstance(model, dict)
    assert isinstance(added, list)
    vocabulary = model["vocab"] | {token: ids[token] for token in tokens.cues} | spelled
    return document | {"model": model | {"vocab": vocabulary}, "added_tokens": added + cues}


def write_scripted(folder: Path, scripts: Sequence[Script] = SCRIPTS, context: int = 8192) -> None:
    """Write the checkpoint; an engine that loads `folder` says the scripts afterwards."""
    tokens = book(scripts)
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": config(tokens, context),
        "tokenizer.json": scripted_tokenizer(tokens),
        "tokenizer_config.json": tokenizer_config() | {"model_max_length": context},
        "generation_config.json": generation_config(),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template(scripts), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors(tensors(tokens)))
