"""A checkpoint of 595 GB in sparse files, and a small one on a real hub client's wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError, WeightsError
from kimideploy.planning.scale import summed, weigh
from kimideploy.planning.types import Layout
from kimideploy.planning.weighing import Weighing
from kimideploy.weights.checkpoint import Checkpoint, read_checkpoint
from kimideploy.weights.places import Folder, Hub
from tests.unit.weights.made import (
    COMMIT,
    KIMI,
    Served,
    checkpoint,
    config_of,
    layer,
    served,
    write,
)

CATALOG = load_catalog()
#: a Kimi of two layers and eight experts
SMALL = replace(KIMI, layers=2, experts=8, vocabulary=KIMI.vocabulary)


def quiet(done: int, count: int) -> None:
    """Tell nobody."""


def read(folder: Path, pattern: str | None = None) -> Checkpoint:
    """Return the checkpoint in *folder*."""
    return read_checkpoint(Folder(folder), pattern, told=quiet)


def weighed(found: Checkpoint, layout: Layout | None = None) -> Weighing:
    """Return its sums for *layout*."""
    return weigh(
        found.tensors,
        layout or Layout(),
        CATALOG,
        place=found.place,
        revision=found.revision,
        files=len(found.files),
        size=found.size,
        config=found.config,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return the folder of all of Kimi K2 in INT4, and the bytes of its tensors."""
    folder = tmp_path_factory.mktemp("hub") / "Kimi-K2-Thinking"
    return folder, checkpoint(folder)


def test_whole_checkpoint(whole: tuple[Path, int]) -> None:
    """Sixty-one layers of 384 experts are 594 GB, and the arithmetic is within half a percent."""
    folder, size = whole
    found = weighed(read(folder), Layout(tp=8))

    assert size == found.exact.bytes
    assert pytest.approx(594.2e9, rel=0.001) == size
    assert ((), ()) == (found.exact.unknown, found.exact.lacks)
    kept = summed(found)
    assert kept.counted is not None
    assert pytest.approx(kept.fullest, rel=0.005) == kept.counted
    assert found.calculated is not None
    by_cause = {share.cause: share.bytes for share in found.calculated.stages[0]}
    for share in found.exact.stages[0].shares:
        assert pytest.approx(share.bytes, rel=0.005) == by_cause[share.cause], share.cause


@pytest.mark.parametrize(
    "layout",
    [
        Layout(tp=8, pp=2),
        Layout(tp=4, pp=3),
        Layout(tp=8, ep=True),
        Layout(tp=1, dp=8, ep=True),
        Layout(tp=16),
    ],
    ids=str,
)
def test_each_layout_agrees_with_the_arithmetic(whole: tuple[Path, int], layout: Layout) -> None:
    """TP, uneven PP, EP and DP: counted and summed are within half a percent on each stage."""
    found = weighed(read(whole[0]), layout)

    assert found.calculated is not None
    for stage, shares in zip(found.exact.stages, found.calculated.stages, strict=True):
        assert pytest.approx(max(stage.ranks), rel=0.005) == sum(s.bytes for s in shares)
    assert KIMI.layers == sum(stage.layers for stage in found.exact.stages)


def test_experts_that_do_not_divide(tmp_path: Path) -> None:
    """Eight experts over three ranks: two ranks hold three, one holds two."""
    folder = tmp_path / "small"
    checkpoint(folder, SMALL)
    ranks = weighed(read(folder), Layout(dp=3, ep=True)).exact.stages[0].ranks

    assert ranks[0] == ranks[1] > ranks[2]
    expert = 3 * KIMI.hidden * KIMI.expert_intermediate
    assert expert * 0.5625 == pytest.approx(ranks[0] - ranks[2], rel=0.001)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Yield a hub with one small checkpoint, which is the endpoint of this process."""
    checkpoint(tmp_path / "moonshotai" / "Kimi-Small", SMALL)
    with served(tmp_path) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield found


def test_a_repository_is_weighed_by_its_headers(hub: Served) -> None:
    """The sums are those of the folder, over range requests of a thousandth of the bytes."""
    there = read_checkpoint(Hub("moonshotai/Kimi-Small"), told=quiet)
    here = read(hub.root / "moonshotai" / "Kimi-Small")

    assert sorted(there.tensors) == sorted(here.tensors)
    assert COMMIT == there.revision
    assert all(f"/resolve/{COMMIT}/" in path for path in hub.asked if "/resolve/" in path)
    assert hub.sent < 5 << 20 < here.size / 100
    assert "Bearer hf_secret" in hub.authorized


@pytest.mark.parametrize(
    ("path", "status", "code", "said"),
    [
        ("/api/models/", 403, "GatedRepo", "is gated"),
        ("/api/models/", 404, "RepoNotFound", "the hub knows no"),
        ("/api/models/", 404, "RevisionNotFound", "no such revision"),
        ("00002-of", 404, "EntryNotFound", "lacks a file that it lists"),
        ("00002-of", 416, "", "answered 416"),
    ],
)
def test_what_the_hub_refuses(hub: Served, path: str, status: int, code: str, said: str) -> None:
    """Each refusal is a sentence about the weights, and never shows the token."""
    hub.refused[path] = (status, code)

    with pytest.raises(WeightsError, match=said) as refused:
        read_checkpoint(Hub("moonshotai/Kimi-Small"), told=quiet)
    assert "hf_secret" not in refused.value.message


def test_a_hub_without_ranges_is_not_downloaded(hub: Served) -> None:
    """Who ignores the range is refused before the file is read."""
    hub.ranges = False

    with pytest.raises(WeightsError, match="does not send parts"):
        read_checkpoint(Hub("moonshotai/Kimi-Small"), told=quiet)


@pytest.mark.usefixtures("hub")
def test_names_that_are_none() -> None:
    """A name that is none, and a repository that is none, are told apart."""
    with pytest.raises(WeightsError, match="knows no moonshotai/Nothing"):
        Hub("moonshotai/Nothing")
    with pytest.raises(RequestError, match="no name of a repository"):
        Hub("moonshotai/a b")
    with pytest.raises(WeightsError, match="no such revision"):
        Hub("moonshotai/Kimi-Small", "v9")


def test_a_missing_shard(tmp_path: Path) -> None:
    """The index names a file that is not there: its name is the message."""
    checkpoint(tmp_path, SMALL)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()

    with pytest.raises(WeightsError, match=r"model-00002-of-00003.safetensors is missing"):
        read(tmp_path)


def test_a_pointer_in_place_of_a_file(tmp_path: Path) -> None:
    """What `git clone` leaves without LFS is named for what it is."""
    checkpoint(tmp_path, SMALL)
    (tmp_path / "model-00001-of-00003.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )

    with pytest.raises(WeightsError, match="Git LFS pointer"):
        read(tmp_path)


def test_a_tensor_that_is_there_twice(tmp_path: Path) -> None:
    """Two files that hold one tensor would be counted twice, and are refused."""
    for file in ("a.safetensors", "b.safetensors"):
        write(tmp_path / file, layer(SMALL, 0))

    with pytest.raises(WeightsError, match=r"is in a.safetensors and in b.safetensors"):
        read(tmp_path)


def test_what_is_missing_and_what_is_strange(tmp_path: Path) -> None:
    """A layer that lacks experts, one that is not there, and names nobody knows are all told."""
    names = layer(replace(SMALL, experts=7), 1) | {"model.extra.weight": ("BF16", (4, 4))}
    write(tmp_path / "a.safetensors", names)
    (tmp_path / "config.json").write_text(json.dumps(config_of(SMALL)))
    found = weighed(read(tmp_path))

    assert [("model.extra.weight", 32)] == [(u.name, u.bytes) for u in found.exact.unknown]
    assert "layer 0 is missing" in found.exact.lacks
    assert "layer 1 has 7 routed experts, the config 8" in found.exact.lacks
    assert "there is no lm_head" in found.exact.lacks


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM is not an architecture"),
        ({"model_type": "qwen3_moe"}, "qwen3_moe is not a model_type"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers is many, not a whole number"),
        ({"hidden_size": 4096}, "hidden_size 4096 makes this DeepseekV3ForCausalLM no Kimi"),
        ({"num_nextn_predict_layers": 1}, "multi-token prediction"),
        ({"n_routed_experts": 10**9}, "n_routed_experts is 1000000000"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than n_routed_experts 8"),
        ({"text_config": []}, "text_config is not an object"),
    ],
)
def test_another_architecture_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """A config that is no Kimi is refused with the field, and nothing is summed."""
    checkpoint(tmp_path, SMALL)
    (tmp_path / "config.json").write_text(json.dumps(config_of(SMALL, **changed)))

    with pytest.raises(RequestError, match=said):
        weighed(read(tmp_path))


def test_a_pruned_kimi_is_weighed_by_its_own_numbers(tmp_path: Path) -> None:
    """Other counts of layers and experts are no other architecture; the difference is told."""
    checkpoint(tmp_path, SMALL)

    notes = weighed(read(tmp_path)).notes

    assert "n_routed_experts is 8, the profiles' 384" in notes
