"""The nano Kimi: what was taught is what is asked today, and its files are what they should be."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kimideploy.rehearsal import nano
from kimideploy.rehearsal.gguf import write_gguf

TRAINER = Path(__file__).parents[3] / "scripts" / "train_nano.py"


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    """The script that trained it; without torch only the training itself is out of reach."""
    spec = importlib.util.spec_from_file_location("train_nano", TRAINER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_it_was_taught_what_is_asked_today(trainer: ModuleType) -> None:
    """After a change of requests or template: scripts/train_nano.py, some minutes."""
    assert trainer.digest() == nano.about()["lessons"]


def test_it_is_small_and_of_kimis_architecture() -> None:
    """At most 5 MB, one to three million parameters, MLA, experts with a shared one, a sigmoid."""
    config = nano.document("config.json")

    assert len(nano.weights()) < 5_000_000
    assert 1_000_000 < nano.about()["parameters"] < 3_000_000
    assert "kimi_k2" == config["model_type"]
    assert ["DeepseekV3ForCausalLM"] == config["architectures"]
    assert (512, 64, 1, "sigmoid", "noaux_tc") == tuple(
        config[name]
        for name in ("kv_lora_rank", "qk_rope_head_dim", "n_shared_experts", "scoring_func",
                     "topk_method")
    )  # fmt: skip


def test_its_weights_are_counted() -> None:
    """The numbers in the file are as many as it says."""
    data = nano.weights()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)

    spans = [one["data_offsets"] for one in header.values()]
    numbers = sum(end - begin for begin, end in spans) // 2
    assert numbers == len(data[8 + size :]) // 2
    biases = [
        end - begin
        for name, one in header.items()
        if name.endswith("correction_bias")
        for begin, end in [one["data_offsets"]]
    ]
    assert numbers - sum(biases) // 2 == nano.about()["parameters"]


def test_it_is_written_whole_and_once(tmp_path: Path) -> None:
    """What is there already is seen; a file that was changed is not taken for ours."""
    assert not nano.is_written(tmp_path)
    nano.write_nano(tmp_path / "a" / "b")
    assert nano.is_written(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "config.json").write_text("{}", encoding="utf-8")
    assert not nano.is_written(tmp_path / "a" / "b")


def test_its_gguf_has_every_weight(tmp_path: Path) -> None:
    """Same numbers, other names: read back by the format's own rules."""
    path = tmp_path / "nano.gguf"
    write_gguf(path)
    data = path.read_bytes()

    magic, version, tensors, entries = struct.unpack("<4sIQQ", data[:24])
    assert (b"GGUF", 3) == (magic, version)
    config = nano.document("config.json")
    layers, dense = config["num_hidden_layers"], config["first_k_dense_replace"]
    assert 3 + layers * 10 + dense * 3 + (layers - dense) * 8 == tensors
    assert entries > 30
    assert b"kimi-k2" in data
    assert len(data) < 5_000_000
