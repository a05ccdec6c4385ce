"""What the shipped profiles say: every number has a source, and they agree with the facts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kimideploy.catalog.failures import of_engine
from kimideploy.catalog.load import check_catalog, load_catalog
from kimideploy.catalog.types import Checkpoint, Model, Tier
from kimideploy.catalog.versions import older
from kimideploy.quantities import GIB, parse_bytes
from kimideploy.resources import shipped

CATALOG = load_catalog()
FILES = sorted(shipped("profiles").rglob("*.yaml"))
#: choices and conditions, not numbers: they say what they are for in words, and link
OURS = ("tiers.yaml", "notices.yaml", "failures.yaml")
LOGS = Path(__file__).parents[2] / "judges" / "logs"


def read(path: Path) -> Any:
    """Return a file as PyYAML alone reads it."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def is_number(value: object) -> bool:
    """Whether a value is a number, or an amount with its unit."""
    if isinstance(value, str):
        return re.fullmatch(r"[0-9.]+ [KMGT]i?B", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def mappings(value: object, source: str | None = None) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each mapping that holds a number, with the source it stands under ("" for none)."""
    if isinstance(value, dict):
        source = value.get("source", source)
        if any(is_number(inner) for inner in value.values()):
            yield value, source or ""
        for inner in value.values():
            yield from mappings(inner, source)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings(inner, source)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_number_has_a_source_with_a_date(path: Path) -> None:
    """A mapping with a number names a source, in itself or above, that has an address and a day."""
    document = read(path)
    if path.name in OURS:
        return
    for entry in document["sources"].values():
        assert re.fullmatch(r"https://\S+", entry["url"])
        assert re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]", entry["date"])
    for mapping, source in mappings(document):
        assert source in document["sources"], mapping


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_guess_says_how(path: Path) -> None:
    """What nobody measured or stated carries a note, and every warning a link and a day."""
    for mapping, _ in mappings(read(path)):
        assert mapping.get("note") or not mapping.get("guess"), mapping
    for rule in CATALOG.notices:
        assert rule.link.startswith("https://")
        assert re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]", rule.date)


def test_shipped_profiles_are_well() -> None:
    """Everything that is asked of a user's file holds for the shipped ones."""
    assert len(FILES) == check_catalog()


@pytest.mark.parametrize(
    ("gpu", "gib"),
    [
        ("h200", 139.8),
        ("h100-80", 79.2),
        ("a100-80", 79.25),
        ("rtx-pro-6000", 94.97),
        ("mi355x", 287.98),
        ("b200", 178.35),
    ],
)
def test_measured_cards(gpu: str, gib: float) -> None:
    """What engines print as a card's total, for the cards somebody read it on."""
    memory = CATALOG.gpus[gpu].memory

    assert (round(gib * 100), False) == (round(memory.usable / GIB * 100), memory.guess)


def test_cards_have_less_than_their_label() -> None:
    """No engine sees more than the label's decimal gigabytes, read as GiB."""
    for gpu in CATALOG.gpus.values():
        label = re.search(r"(\d+) GB", gpu.name)
        assert label is not None
        assert 0.9 * 10**9 * int(label[1]) < gpu.memory.usable < int(label[1]) * GIB, gpu.id


def test_native_size_is_the_sum_of_its_parts() -> None:
    """595.145 GB: routed experts by the format, 11.721e9 other weights in bf16, and vision."""
    shape, form = CATALOG.architectures["kimi-k2"], CATALOG.formats["int4"]
    moe = shape.layers - shape.dense_layers
    routed = moe * shape.experts * 3 * shape.hidden * shape.expert_intermediate
    model = CATALOG.models["kimi-k2.7-code"]
    assert model.vision is not None
    total = routed * form.expert_bytes + 11.721e9 * form.other_bytes + model.vision.bytes
    stated = checkpoint(model, "int4").size

    assert stated is not None
    assert abs(total / stated - 1) < 0.0001


def checkpoint(model: Model, name: str) -> Checkpoint:
    """Return one checkpoint of a model by its id."""
    return next(c for c in model.checkpoints if c.id == name)


@pytest.mark.parametrize("model", CATALOG.models.values(), ids=lambda model: model.id)
def test_every_model_can_be_planned(model: Model) -> None:
    """A model has its native checkpoint, a GGUF, a word on bf16, parsers, and floors it meets."""
    ids = [c.id for c in model.checkpoints]

    assert len(ids) == len(set(ids))
    assert {"int4", "nvfp4", "bf16"} < set(ids)
    assert checkpoint(model, "int4").official
    assert any(c.format == "gguf" for c in model.checkpoints)
    assert ("kimi_k2", "kimi_k2") == (model.tool_parser, model.reasoning_parser)
    assert "functions.{name}:{index}" == model.tool_id
    for name, floor in model.engines.items():
        assert not older(CATALOG.engines[name].versions.pinned, floor.minimum)


def test_no_official_bf16_is_a_fact() -> None:
    """K2.5 to K2.7 have no bf16 checkpoint; K2-Thinking has a community's."""
    there = {m.id: checkpoint(m, "bf16").exists for m in CATALOG.models.values()}

    assert {"kimi-k2-thinking"} == {name for name, exists in there.items() if exists}


def test_every_checkpoint_has_a_tier() -> None:
    """Whatever is planned has a row that users know."""
    for model in CATALOG.models.values():
        for found in model.checkpoints:
            assert any(_covers(tier, found) for tier in CATALOG.tiers), found.id


def _covers(tier: Tier, found: Checkpoint) -> bool:
    if found.format not in tier.formats or tier.gpus or tier.generations:
        return False
    if tier.lossless is not None and tier.lossless != found.lossless:
        return False
    if tier.bits is None:
        return True
    return found.bits is not None and tier.bits[0] <= found.bits <= tier.bits[1]


def test_smaller_quants_have_fewer_bits() -> None:
    """GGUF sizes fall with their bits, and what lies beside the experts is a small part."""
    for model in CATALOG.models.values():
        quants = [c for c in model.checkpoints if c.format == "gguf"]
        sizes = [int(c.size or 0) for c in sorted(quants, key=lambda c: -(c.bits or 0))]
        assert sorted(sizes, reverse=True) == sizes
        for quant in quants:
            assert quant.size is not None
            assert quant.non_expert is not None
            assert quant.non_expert < quant.size / 10


def test_tiers_of_the_article_come_first_where_they_fit() -> None:
    """The four rows people know are there, and ranks put native INT4 first and bf16 last."""
    rank = {tier.id: tier.rank for tier in CATALOG.tiers}

    assert {"fp16", "int4-h200", "int4-a100", "gguf-2bit"} < set(rank)
    order = ("int4-h200", "nvfp4-b200", "hybrid", "gguf-lossless", "gguf-4bit", "gguf-3bit")
    falling = (*order, "gguf-2bit", "gguf-1bit", "fp16")
    assert sorted(falling, key=rank.__getitem__) == list(falling)


def test_engines_name_their_reasoning_field() -> None:
    """vLLM sends `reasoning`; SGLang and llama-server send `reasoning_content`."""
    fields = {engine.id: engine.reasoning_field for engine in CATALOG.engines.values()}

    assert "reasoning" == fields.pop("vllm")
    assert {"reasoning_content"} == set(fields.values())


def test_flags_are_words_and_versions_are_not_denied() -> None:
    """A flag's word begins with two dashes; the pinned version is neither old nor denied."""
    for engine in CATALOG.engines.values():
        assert all(flag.word.startswith("--") for flag in engine.flags.values())
        assert not older(engine.versions.pinned, engine.versions.minimum)
        assert engine.versions.pinned not in {d.version for d in engine.versions.denied}
        assert len(of_engine(CATALOG.failures, engine.id)) >= 40
        for wanted in engine.install.requirements.values():
            assert all("==" in w for w in wanted if not w.startswith(("tiktoken", "blobfile")))


#: lines as the engines' own sources write them, with what a reader must take from them
PROGRESS = [
    (
        "vllm",
        "loading weights",
        "Loading safetensors checkpoint shards:  42% Completed | 27/64 [05:12<07:03, 11.45s/it]",
        {"percent": "42", "done": "27", "total": "64"},
    ),
    (
        "vllm",
        "loading weights",
        "Loading safetensors checkpoint shards (eager): 100% Completed | 64/64 [09:00<00:00]",
        {"percent": "100", "done": "64", "total": "64"},
    ),
    (
        "vllm",
        "weights loaded",
        "INFO gpu_model_runner.py:5150] Model loading took 72.02 GiB memory and 789.1 seconds",
        {"gib": "72.02"},
    ),
    (
        "vllm",
        "capturing graphs",
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  60%|██████    | 30/50 [00:09]",
        {"percent": "60", "done": "30", "total": "50"},
    ),
    (
        "sglang",
        "loading weights",
        "Multi-thread loading shards:  50% Completed | 32/64 [01:00<01:00,  1.90s/it]",
        {"percent": "50", "done": "32", "total": "64"},
    ),
    (
        "ktransformers",
        "capturing graphs",
        "Capturing batches (bs=4 avail_mem=3.21 GB):  50%|█████     | 2/4 [00:01<00:01]",
        {"percent": "50", "done": "2", "total": "4"},
    ),
]


@pytest.mark.parametrize(("engine", "stage", "line", "groups"), PROGRESS)
def test_progress_is_read_from_a_line(
    engine: str, stage: str, line: str, groups: dict[str, str]
) -> None:
    """A line of progress belongs to one stage and gives its numbers."""
    stages = next(e.log.stages for e in CATALOG.engines.values() if e.id == engine)
    found = [(s.stage, re.search(s.pattern, line)) for s in stages]
    hits = {name: hit for name, hit in found if hit is not None}

    assert [stage] == list(hits)
    assert groups == {key: value for key, value in hits[stage].groupdict().items() if value}


DEATHS = [
    (
        "vllm",
        "vllm-kv-none",
        "ValueError: No available memory for the cache blocks. Try increasing",
    ),
    (
        "vllm",
        "vllm-kv-short",
        "(17.1 GiB KV cache is needed, which is larger than the available KV cache memory (9 GiB)",
    ),
    (
        "vllm",
        "gpu-occupied",
        "Free memory on device cuda:1 (1/2 GiB) on startup is less than desired GPU memory util",
    ),
    ("vllm", "gpu-oom", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.2 GiB."),
    (
        "vllm",
        "trust-remote-code",
        "`trust_remote_code=True` in LLM or using the `--trust-remote-code` flag in the CLI.",
    ),
    ("vllm", "flag-unknown", "vllm: error: unrecognized arguments: --kt-method"),
    ("vllm", "port-taken", "OSError: [Errno 98] Address already in use"),
    (
        "sglang",
        "sglang-kv-none",
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
    ),
    (
        "sglang",
        "port-taken",
        "ValueError: port at 30000 is not available in 30 seconds. port is used",
    ),
    ("ktransformers", "kt-packages", "error: unrecognized arguments: --kt-method RAWINT4"),
    (
        "llamacpp",
        "llama-vram",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    ),
    ("llamacpp", "llama-too-old", "error loading model: unknown model architecture: 'deepseek9'"),
]


@pytest.mark.parametrize(("engine", "failure", "line"), DEATHS)
def test_cause_of_a_death_is_known(engine: str, failure: str, line: str) -> None:
    """The last line of an engine that died leads to its cause first."""
    failures = of_engine(CATALOG.failures, engine)  # type: ignore[arg-type]

    assert failure == next(f.id for f in failures if re.search(f.pattern, line))


def test_real_log_of_vllm_is_read_in_order() -> None:
    """On a log of the real engine the stages come in their order, and nothing looks like death."""
    engine = CATALOG.engines["vllm"]
    log = (LOGS / "vllm-0.32.0-cpu-tiny.log").read_text(encoding="utf-8").splitlines()
    first = [
        next((n for n, line in enumerate(log) if re.search(stage.pattern, line)), None)
        for stage in engine.log.stages
    ]
    seen = [n for n in first if n is not None]

    assert len(seen) >= 3
    assert sorted(seen) == seen
    assert [] == [
        (failure.id, line)
        for failure in of_engine(CATALOG.failures, "vllm")
        for line in log
        if re.search(failure.pattern, line)
    ]


def test_sizes_are_read_as_they_are_written() -> None:
    """The walk above sees amounts with units as numbers, so none slips by without a source."""
    amounts = [v for path in FILES for m, _ in mappings(read(path)) for v in m.values()]

    assert "139.8 GiB" in amounts
    assert parse_bytes("139.8 GiB") == CATALOG.gpus["h200"].memory.usable
