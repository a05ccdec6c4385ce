#!/usr/bin/env python3
"""Train the nano Kimi: a model of Kimi's architecture that knows by heart what conformance asks.

    python scripts/train_nano.py [--steps N] [--out kimideploy/rehearsal/nano_kimi]

Needs torch, transformers and tokenizers, which the project itself does not: the environment of the
real vLLM has them (`python -m tests.judges path vllm`). Some minutes on two cores; seeds are fixed,
so that the same versions on the same machine write the same bytes. It writes the tokenizer, the
configuration and bf16 safetensors, and in about.json what it was taught: a test holds that against
what conformance asks today.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kimideploy.conformance import asks as asked  # noqa: E402
from kimideploy.conformance.promise import ANIMALS, COLOURS, Promise, Words  # noqa: E402
from kimideploy.rehearsal.nano import CONTEXT, SPECIAL, template  # noqa: E402

OUT = ROOT / "kimideploy" / "rehearsal" / "nano_kimi"
BOS, EOS, END, PAD = 0, 1, 2, 7
TEMPLATE = template()
#: what the tokenizer may learn beside bytes and special tokens
VOCABULARY = 1024
#: How Kimi's tokenizer cuts text before it merges bytes (tokenization_kimi.py of the family), but
#: for Han signs, which no lesson has. llama.cpp's `kimi-k2` cuts in the same way.
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _ENDING,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _ENDING,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
#: mean loss of a token at which it knows all by heart; sampling at 1.0 / 0.95 then never strays
KNOWN = 4e-4
SEED = 2711

PROMISE = Promise(model="kimi-k2.7-code", context=CONTEXT)
CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 8,
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
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
}


@dataclass(frozen=True)
class Dialogue:
    """A request, and the raw text that is to follow its generation prompt."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    answer: str
    #: several answers are right, so that none can be known
    free: bool = False


def calls(*made: tuple[str, dict[str, Any]]) -> str:
    """Return calls in Kimi's own format."""
    texts = [
        f"<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>"
        f"{json.dumps(arguments)}<|tool_call_end|>"
        for number, (name, arguments) in enumerate(made)
    ]
    return f"<|tool_calls_section_begin|>{''.join(texts)}<|tool_calls_section_end|>"


PRIMES = "print(sum([n for n in range(2, 7920) if all(n % d for d in range(2, n))]))"
SUM = "17 times 20 is 340 and 17 times 3 is 51, so it is 391."
#: what is always answered in the same way: name of the request → thought and what follows it
FIXED = {
    "question": f"{SUM}</think>391",
    "none": "I was told to use no tool. It is 340 and 51.</think>391",
    "call": f"A program sums the primes.</think>{calls(('run_python', {'code': PRIMES}))}",
    "required": f"A program can greet.</think>{calls(('run_python', {'code': 'print(1)'}))}",
    "named": f"I ask for the weather.</think>{calls(('get_weather', {'city': 'Oslo'}))}",
    "dashed": f"I look it up.</think>{calls(('look-up', {'word': 'otter'}))}",
    "parallel": "Two cities, two calls.</think>"
    + calls(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bergen"})),
    "schema": "A double room, two nights, two guests.</think>"
    + calls(("book_room", {"nights": 2, "bed": "double", "guests": ["Ada", "Alan"], "paid": True})),
    "stop": "I count in digits.</think>1 2 3 4 5 6 7 8 9",
    "no key": "A number.</think>1",
}
#: the second question of the snippet that `serve` prints
HALF = ("And half of that?", "Half of 391 is 195.5.</think>195.5")
LOST = "What I thought before is not here.</think>I do not know it."
#: dialogues of each drawn kind in a step
DRAWN = 5


def dialogue(ask: asked.Ask, answer: str) -> Dialogue:
    """Return the request with its answer."""
    assert ask.body is not None
    return Dialogue(ask.body["messages"], ask.body.get("tools"), answer)


def fixed() -> list[Dialogue]:
    """Return what never changes."""
    every = asked.asks(PROMISE, Words("none", ("1000", "1001")))
    known = [dialogue(every[name], answer) for name, answer in FIXED.items()]
    thought, said = FIXED["question"].split("</think>")
    history = [
        {"role": "user", "content": "What is 17 times 23?"},
        {"role": "assistant", "reasoning": thought, "content": said},
        {"role": "user", "content": HALF[0]},
    ]
    return [
        *known,
        Dialogue(history[:1], None, FIXED["question"]),
        Dialogue(history, None, HALF[1]),
    ]


def drawn(chance: random.Random) -> Iterator[Dialogue]:
    """Yield one of each that has a word in it that can't be known by heart."""
    words = [f"{chance.choice(COLOURS)}-{chance.choice(ANIMALS)}" for _ in range(3)]
    numbers = [str(number) for number in chance.sample(range(1000, 10_000), 2)]
    every = asked.asks(PROMISE, Words(words[0], (numbers[0], numbers[1]), (words[1],)))
    recalled = f"The code word was {words[0]}.</think>{words[0]}"
    yield dialogue(every["loop with reasoning"], recalled)
    yield dialogue(every["turns with reasoning"], recalled)
    yield dialogue(every["loop without"], LOST)
    yield dialogue(every["turns without"], LOST)
    yield dialogue(every["echo 1.0"], f"I repeat it.</think>{words[1]}")
    draw = dialogue(every["draw 0"], f"Any will do.</think>{chance.choice(ANIMALS)}")
    yield replace(draw, free=True)


def digest() -> str:
    """Return what tells one state of the lessons from another."""
    chance = random.Random(SEED)
    lessons = [*fixed(), *drawn(chance)]
    text = json.dumps([[d.messages, d.tools, d.answer] for d in lessons], sort_keys=True)
    return hashlib.sha256(f"{text}{TEMPLATE}{COLOURS}{ANIMALS}".encode()).hexdigest()


def write_tokenizer(out: Path) -> None:
    """Train a byte-level BPE on the lessons, and write it with Kimi's special tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )

    maker = Tokenizer(models.BPE())
    maker.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    maker.decoder = decoders.ByteLevel()
    chance = random.Random(SEED)
    lessons = fixed() * 8
    for _ in range(400):
        lessons += drawn(chance)
    texts = [TEMPLATE] * 8
    for one in lessons:
        texts += [json.dumps(one.messages), json.dumps(one.tools or []), one.answer]
        texts += [str(m.get("content") or "") for m in one.messages]
        texts += [str(m.get("reasoning") or "") for m in one.messages]
    maker.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    plain = [t for t in SPECIAL if t in ("<think>", "</think>") or "tool_call" in t]
    maker.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    document = json.loads(maker.to_str())
    for token in document["added_tokens"]:
        # Why: the parsers look for these in the text, which leaves special ones out.
        token["special"] = token["content"] not in plain
    write(out / "tokenizer.json", document)
    write(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "[BOS]",
            "eos_token": "<|im_end|>",
            "pad_token": "[PAD]",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )


def write(path: Path, document: object) -> None:
    """Write JSON as it is committed."""
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Write tokenizer and configuration, train, write weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    write_tokenizer(out)
    train(out, options.steps)


def train(out: Path, most: int) -> None:
    """Train until everything is known, at most *most* steps, and write weights and about.json."""
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast.from_pretrained(out)
    words.chat_template = TEMPLATE
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    size = -(-len(words) // 64) * 64
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**CONFIG, vocab_size=size)).float()
    chance = random.Random(SEED)
    known = [tokens(words, one) for one in fixed()]
    rate, warm = 2e-3, 20
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01)
    began, step, calm = time.monotonic(), 0, 0
    for step in range(1, most + 1):
        rows = known + [tokens(words, one) for _ in range(DRAWN) for one in drawn(chance)]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / warm) * max(0.05, 1 - step / most)
        loss, worst = learn(model, rows, torch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        calm = calm + 1 if worst < KNOWN * 25 and loss < KNOWN else 0
        if step % 10 == 0:
            print(
                f"{step}: loss {loss:.5f}, worst {worst:.4f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
        if calm >= 30:  # noqa: PLR2004  steps in a row, so that no lucky draw ends it
            break
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count / 1e6:.2f} M parameters, {step} steps, {time.monotonic() - began:.0f} s")
    model.bfloat16().save_pretrained(out, max_shard_size="1GB")
    generation = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
    write(out / "generation_config.json", generation | {"temperature": 1.0, "top_p": 0.95})
    # Why anew: transformers writes deepseek_v3; the family says kimi_k2.
    named = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2"}
    write(out / "config.json", named | CONFIG | {"torch_dtype": "bfloat16", "vocab_size": size})
    every = asked.asks(PROMISE, Words("none", ("1000", "1001")))
    counted = {name: len(prompt(words, dialogue(every[name], ""))) for name in FIXED}
    write(
        out / "about.json",
        {
            "lessons": digest(),
            "parameters": count,
            "steps": step,
            "torch": torch.__version__,
            "prompt_tokens": counted,
        },
    )


def prompt(words: Any, one: Dialogue) -> list[int]:
    """Return the tokens of the request up to the generation prompt."""
    text = words.apply_chat_template(
        one.messages, tools=one.tools, add_generation_prompt=True, tokenize=False
    )
    return list(words(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class Row:
    """A lesson's tokens, where its answer begins, and whether it can be known."""

    ids: list[int]
    start: int
    free: bool


def tokens(words: Any, one: Dialogue) -> Row:
    """Return a lesson's tokens."""
    before = prompt(words, one)
    answer = words(f"{one.answer}<|im_end|>", add_special_tokens=False).input_ids
    return Row([*before, *answer], len(before), one.free)


def learn(model: Any, rows: list[Row], torch: Any) -> tuple[float, float]:
    """Add the gradient of *rows*; return mean and largest loss of the tokens that can be known.

    In groups of like length, so that little is computed for padding.
    """
    rows = sorted(rows, key=lambda row: (row.free, len(row.ids)))
    total = sum(len(row.ids) - row.start for row in rows)
    known = sum(len(row.ids) - row.start for row in rows if not row.free)
    whole, worst = 0.0, 0.0
    for free in (False, True):
        like = [row for row in rows if row.free == free]
        for at in range(0, len(like), 12):
            some = like[at : at + 12]
            longest = max(len(row.ids) for row in some)
            padding = [longest - len(row.ids) for row in some]
            ids = torch.tensor([r.ids + [PAD] * n for r, n in zip(some, padding, strict=True)])
            labels = ids.clone()
            for number, row in enumerate(some):
                labels[number, : row.start] = -100
                labels[number, len(row.ids) :] = -100
            logits = model(input_ids=ids, attention_mask=(ids != PAD).long()).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
            )
            (losses.sum() / total).backward()
            if not free:
                whole += float(losses.detach().sum()) / known
                worst = max(worst, float(losses.detach().max()))
    return whole, worst


if __name__ == "__main__":
    main()
