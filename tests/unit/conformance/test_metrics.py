"""What engines count, read from pages that the real ones printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.conformance.metrics import Counted, read
from kimideploy.rehearsal.metrics import Counts, metrics
from kimideploy.rehearsal.types import Mind

RECORDED = Path(__file__).parents[2] / "judges" / "logs"
ENGINES = load_catalog().engines


def _page(name: str) -> str:
    """Return the page of metrics among recorded answers."""
    answers = json.loads((RECORDED / name).read_text(encoding="utf-8"))
    page = next(one["body"] for one in answers if one["path"] == "/metrics")
    assert isinstance(page, str)
    return page


@pytest.mark.parametrize(
    ("engine", "name", "cache"),
    [("vllm", "vllm-0.32.0-api.json", 0.0), ("llamacpp", "llamacpp-11434-scripted.json", None)],
)
def test_the_real_pages(engine: EngineId, name: str, cache: float | None) -> None:
    """Under its profile's names a real engine's page tells requests, cache and tokens."""
    found = read(_page(name), ENGINES[engine].metrics)

    assert (0.0, 0.0, cache) == (found.running, found.waiting, found.cache)
    assert found.made is not None


@pytest.mark.parametrize("engine", ["vllm", "sglang", "ktransformers", "llamacpp"])
def test_the_stand_in_speaks_so(engine: EngineId) -> None:
    """The stand-in counts under the names of the profile of the engine that it stands in for."""
    mind = Mind(engine, "kimi", "/srv", 1000, reasoning_parser=True, tool_parser=True,
                auto_tools=True)  # fmt: skip

    found = read(metrics(mind, Counts(requests=3, generated=77)), ENGINES[engine].metrics)

    assert (0.0, 0.0, 77.0) == (found.running, found.waiting, found.made)


def test_sums_and_the_fullest() -> None:
    """Over several ranks requests are summed, and of the caches the fullest counts."""
    page = (
        'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 3\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 5e-1\n'
    )

    found = read(page, ENGINES["vllm"].metrics)

    assert Counted(running=5.0, waiting=None, cache=0.5, made=None) == found


@pytest.mark.parametrize("page", ["", "\0", "vllm:num_requests_running nan\n", "{" * 10_000])
def test_what_is_no_page(page: str) -> None:
    """Of what can't be read nothing is told."""
    assert Counted() == read(page, ENGINES["vllm"].metrics)
