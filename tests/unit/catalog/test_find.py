"""Finding a profile by the word a person, a driver or a hub uses for it."""

from __future__ import annotations

import pytest

from kimideploy.catalog.find import find_gpu, find_model, find_profile, gpu_by_driver_name
from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.quantities import GIB, MIB

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("word", "gpu"),
    [
        ("H200", "h200"),
        ("h200", "h200"),
        ("H100", "h100-80"),
        ("H100-80GB", "h100-80"),
        ("H100-94GB", "h100-94"),
        ("A100", "a100-80"),
        ("A100-40GB", "a100-40"),
        ("a100 80gb", "a100-80"),
        ("H20", "h20-96"),
        ("H20-141GB", "h20-141"),
        ("RTX4090", "rtx4090"),
        ("rtx-4090", "rtx4090"),
        ("RTX4090-48GB", "rtx4090-48"),
        ("RTXPRO6000", "rtx-pro-6000"),
        ("RTX_PRO_6000", "rtx-pro-6000"),
        ("RTX5090", "rtx5090"),
        ("RTX3090", "rtx3090"),
        ("A6000", "a6000"),
        ("L40S", "l40s"),
        ("L20", "l20"),
        ("RTX6000Ada", "rtx-6000-ada"),
        ("B200", "b200"),
        ("B300", "b300"),
        ("GB200", "gb200"),
        ("GB300", "gb300"),
        ("GB10", "gb10"),
        ("MI300X", "mi300x"),
        ("MI325X", "mi325x"),
        ("MI350X", "mi350x"),
        ("MI355X", "mi355x"),
    ],
)
def test_word_for_a_gpu(word: str, gpu: str) -> None:
    """The words of --hardware, case and punctuation aside; a bare name is the usual card."""
    assert gpu == find_gpu(CATALOG, word).id


def test_every_id_and_alias_finds_its_own() -> None:
    """No two profiles answer to one word."""
    for gpu in CATALOG.gpus.values():
        for word in (gpu.id, *gpu.aliases):
            assert gpu == find_gpu(CATALOG, word)
    for model in CATALOG.models.values():
        for word in (model.id, *model.aliases):
            assert model == find_model(CATALOG, word)


def test_word_nobody_knows_is_suggested() -> None:
    """A slip is told with the nearest name and where the names are."""
    with pytest.raises(RequestError, match=r"GPU 'H300' is not known; did you mean `H200`\?") as no:
        find_gpu(CATALOG, "H300")
    assert "profiles list gpus" in str(no.value.hint)
    with pytest.raises(RequestError, match=r"model 'kimi-2\.7-code' .* `kimi-k2\.7-code`\?"):
        find_model(CATALOG, "kimi-2.7-code")
    with pytest.raises(RequestError, match=r"profile 'vlm' is not known; did you mean `vllm`\?"):
        find_profile(CATALOG, "vlm")


@pytest.mark.parametrize(
    ("name", "mib", "gpu"),
    [
        ("NVIDIA H200", 143_771, "h200"),
        ("NVIDIA H200 NVL", 143_771, "h200-nvl"),
        ("NVIDIA H100 80GB HBM3", 81_559, "h100-80"),
        ("NVIDIA H100 PCIe", 81_559, "h100-80-pcie"),
        ("NVIDIA H100 NVL", 95_830, "h100-94"),
        ("NVIDIA A100-SXM4-80GB", 81_920, "a100-80"),
        ("NVIDIA A100 80GB PCIe", 81_920, "a100-80-pcie"),
        ("NVIDIA A100-SXM4-40GB", 40_960, "a100-40"),
        ("NVIDIA A100-PCIE-40GB", 40_960, "a100-40-pcie"),
        ("NVIDIA H20", 97_871, "h20-96"),
        ("NVIDIA H20-3e", 143_771, "h20-141"),
        ("NVIDIA B200", 183_359, "b200"),
        ("NVIDIA B300 SXM6 AC", 275_040, "b300"),
        ("NVIDIA GB200", 189_471, "gb200"),
        ("NVIDIA GB300", 284_208, "gb300"),
        ("NVIDIA GB10", None, "gb10"),
        ("NVIDIA GeForce RTX 4090", 24_564, "rtx4090"),
        ("NVIDIA GeForce RTX 4090", 49_140, "rtx4090-48"),
        ("NVIDIA GeForce RTX 4090 D", 24_564, "rtx4090"),
        ("NVIDIA GeForce RTX 5090", 32_607, "rtx5090"),
        ("NVIDIA GeForce RTX 3090", 24_576, "rtx3090"),
        ("NVIDIA RTX A6000", 49_140, "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", 49_140, "rtx-6000-ada"),
        ("NVIDIA L40S", 46_068, "l40s"),
        ("NVIDIA L20", 46_068, "l20"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97_887, "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, "rtx-pro-6000"),
        ("AMD Instinct MI300X", 196_592, "mi300x"),
        ("AMD Instinct MI325X", 262_128, "mi325x"),
        ("AMD Instinct MI350X", 294_896, "mi350x"),
        ("AMD Instinct MI355X", 294_896, "mi355x"),
    ],
)
def test_name_as_the_driver_prints_it(name: str, mib: int | None, gpu: str) -> None:
    """A driver's name and memory lead to one profile."""
    found = gpu_by_driver_name(CATALOG, name, mib * MIB if mib is not None else None)

    assert found is not None
    assert gpu == found.id


def test_same_name_is_told_apart_by_memory_only() -> None:
    """Patterns of two profiles overlap only where the memory differs by a third or more."""
    fitting: dict[str, list[int]] = {}
    for gpu in CATALOG.gpus.values():
        for pattern in gpu.driver_names:
            fitting.setdefault(pattern, []).append(gpu.memory.usable)
    for sizes in fitting.values():
        assert all(max(sizes) > 1.33 * size for size in sizes if size != max(sizes))


def test_gpu_nobody_described_is_none() -> None:
    """A card without a profile is a fact, not an error."""
    assert gpu_by_driver_name(CATALOG, "NVIDIA T4", 15 * GIB) is None
    assert gpu_by_driver_name(CATALOG, "NVIDIA H200 NVL Mark 9", None) is None


def test_repository_finds_its_model() -> None:
    """Any repository of a model's checkpoints names the model."""
    assert "kimi-k2.7-code" == find_model(CATALOG, "unsloth/kimi-k2.7-code-gguf").id
    assert "kimi-k2.6" == find_model(CATALOG, "nvidia/Kimi-K2.6-NVFP4").id


@pytest.mark.parametrize(
    ("word", "name"),
    [("vllm", "vLLM"), ("llama.cpp", "llama.cpp"), ("H100", "NVIDIA H100 SXM 80 GB")],
)
def test_any_kind_of_profile_is_found(word: str, name: str) -> None:
    """`profiles show` takes an id of any kind, or another name."""
    assert name == getattr(find_profile(CATALOG, word), "name", None)
    assert "fp16" == getattr(find_profile(CATALOG, "fp16"), "id", None)
