"""Small repositories of the shape of a Kimi checkpoint: shards, index, config, code, template."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

CODE = "import torch\n\n\nclass KimiModel:\n    pass\n"


def shards(count: int) -> list[str]:
    """Return the names of the shards, as Moonshot numbers them."""
    return [f"model-{n:05d}-of-{count:06d}.safetensors" for n in range(1, count + 1)]


def kimi(folder: Path, *, count: int = 4, size: int = 100_000, seed: int = 0) -> Path:
    """Write a checkpoint of *count* shards, a tensor of *size* bytes each; returns *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    index = {}
    for number, name in enumerate(shards(count)):
        tensor = f"model.layers.{number}.weight"
        safetensors(folder / name, tensor, chance.randbytes(size))
        index[tensor] = name
    text = {"metadata": {"total_size": count * size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(text))
    (folder / "config.json").write_text(json.dumps({"model_type": "kimi_k25", "seed": seed}))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "tiktoken.model").write_bytes(chance.randbytes(70_000))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "modeling_kimi_k25.py").write_text(CODE)
    (folder / "LICENSE").write_text("Modified MIT")
    # what an engine does not read, and what must never come
    (folder / "README.md").write_text("# Kimi")
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "logo.png").write_bytes(b"png")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    return folder


def safetensors(path: Path, tensor: str, data: bytes) -> None:
    """Write a file of one tensor of bytes."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    head = json.dumps({tensor: entry}).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


WANTED = {
    "LICENSE",
    "chat_template.jinja",
    "config.json",
    "model.safetensors.index.json",
    "modeling_kimi_k25.py",
    "tiktoken.model",
    "tokenizer_config.json",
}
