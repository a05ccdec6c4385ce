"""The nano Kimi: a trained checkpoint of Kimi's architecture, small enough to come along.

MLA, experts with a shared one, a sigmoid router, Kimi's special tokens and a chat template that
keeps the reasoning of every turn, in our own words. It knows by heart what conformance asks: it
thinks, calls tools in Kimi's token format, and carries a code word over from earlier reasoning.
`scripts/train_nano.py` made it. Real engines load it like any other checkpoint.
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
#: tokens of prompt and answer together
CONTEXT = 8192

_DATA = Path(__file__).with_name("nano_kimi")
#: what an engine reads; about.json, which lies beside them, is for us
_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def template() -> str:
    """Return the chat template.

    It shows of a tool its name and what it is for, not its schema: each engine writes a schema down
    in its own way, and the model was taught one way only.
    """
    return (_DATA / "chat_template.jinja").read_text(encoding="utf-8")


def about() -> dict[str, Any]:
    """Return how it was made: steps, parameters, digest of the lessons, tokens of prompts."""
    return dict(json.loads((_DATA / "about.json").read_text(encoding="utf-8")))


def prompt_tokens() -> tuple[tuple[str, int], ...]:
    """Return how many tokens the prompts of conformance have, by the name of the request."""
    return tuple(sorted(about()["prompt_tokens"].items()))


def document(name: str) -> dict[str, Any]:
    """Return one of its JSON files."""
    return dict(json.loads((_DATA / name).read_text(encoding="utf-8")))


def weights() -> bytes:
    """Return its safetensors."""
    return (_DATA / "model.safetensors").read_bytes()


def write_nano(folder: Path) -> None:
    """Write the checkpoint into *folder*, which is made if it is missing: 4 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        write_whole(folder / name, (_DATA / name).read_bytes())


def is_written(folder: Path) -> bool:
    """Return whether the checkpoint's files are in *folder*, as this version has them."""
    try:
        return all((folder / n).read_bytes() == (_DATA / n).read_bytes() for n in _FILES)
    except OSError:
        return False
