"""What the stand-in prints, read with the patterns the profiles have for the real engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kimideploy.catalog.failures import of_engine
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.doctor.causes import causes_in
from kimideploy.rehearsal.argv import Refused, read
from kimideploy.rehearsal.failures import ENDINGS, death
from kimideploy.rehearsal.logs import loading, serving
from kimideploy.rehearsal.types import Mind

CATALOG = load_catalog()
ARGV: dict[EngineId, list[str]] = {
    "vllm": ["vllm", "serve", "m", "--port", "8000"],
    "sglang": ["sglang", "serve", "--model-path", "m"],
    "ktransformers": ["python3", "-m", "sglang.launch_server", "--model", "m", "--kt-method", "X"],
    "llamacpp": ["llama-server", "--model", "m.gguf"],
}
#: stages the pinned version no longer prints unless it is told to talk more
SILENT = {"llamacpp": {"warming up"}}
RECORD = Path(__file__).parents[2] / "judges" / "logs" / "vllm-0.32.0-cpu-tiny.log"


def printed(engine: EngineId) -> list[str]:
    """Return the lines of a good load and of the server after it."""
    words = read(ARGV[engine])
    lines = [*loading(words, 8, lambda: 0.0), *serving(words, lambda: 0.0)]
    return [line.text for line in lines]


def mind(engine: EngineId) -> Mind:
    """Return a mind of the engine, with all its parsers."""
    return Mind(engine, "kimi-k2.7-code", "m", 4096, True, True, True)  # noqa: FBT003


@pytest.mark.parametrize("engine", ARGV)
def test_every_stage_is_seen_in_order(engine: EngineId) -> None:
    """Each stage of the engine's profile is found in the log, first seen in the profile's order."""
    stages = [
        s for s in CATALOG.engines[engine].log.stages if s.stage not in SILENT.get(engine, ())
    ]
    lines = printed(engine)

    first = [
        next((i for i, line in enumerate(lines) if re.search(stage.pattern, line)), None)
        for stage in stages
    ]

    assert None not in first, dict(zip([s.stage for s in stages], first, strict=True))
    assert sorted(i for i in first if i is not None) == first


@pytest.mark.parametrize("engine", ARGV)
def test_a_good_load_looks_like_no_failure(engine: EngineId) -> None:
    """No pattern of a failure is found in the log of a good load."""
    failures = of_engine(CATALOG.failures, engine)

    assert () == causes_in("\n".join(printed(engine)), failures)


@pytest.mark.parametrize("engine", ARGV)
def test_a_load_takes_its_time_once(engine: EngineId) -> None:
    """The shares of the load add up to one, so --load-seconds is what it takes."""
    shares = [line.share for line in loading(read(ARGV[engine]), 64)]

    assert pytest.approx(1.0) == sum(shares)


WANTED = {
    "vllm": {
        "oom": "gpu-oom",
        "no-kv": "vllm-kv-none",
        "version": "architecture-unknown",
        "port": "port-taken",
        "nccl": "nccl-unhandled",
        "exit0": "engine-dead",
    },
    "sglang": {
        "oom": "gpu-oom",
        "no-kv": "sglang-kv-none",
        "version": "parser-unknown",
        "port": "port-taken",
        "nccl": "nccl-unhandled",
    },
    "llamacpp": {
        "oom": "llama-vram",
        "no-kv": "llama-vram",
        "version": "llama-too-old",
        "port": "port-taken",
    },
}


@pytest.mark.parametrize(
    ("engine", "way", "wanted"),
    [(engine, way, WANTED[engine][way]) for engine in WANTED for way in WANTED[engine]],
)
def test_a_death_is_recognised(engine: EngineId, way: str, wanted: str) -> None:
    """The profile's first pattern that fits names the way it died."""
    text = death(way, mind(engine), "127.0.0.1", 8000).text
    found = causes_in(text, of_engine(CATALOG.failures, engine))

    assert wanted == found[0].failure.id


def test_llama_server_has_no_nccl() -> None:
    """A way the engine can't die in is refused."""
    with pytest.raises(Refused, match="NCCL"):
        death("nccl", mind("llamacpp"), "127.0.0.1", 8080)


@pytest.mark.parametrize("engine", ARGV)
def test_only_exit0_ends_with_0(engine: EngineId) -> None:
    """Every other death has the exit code of one."""
    ways = [way for way in ENDINGS if (engine, way) != ("llamacpp", "nccl")]

    ends = {way: death(way, mind(engine), "127.0.0.1", 1).code for way in ways}

    assert ["exit0"] == [way for way, code in ends.items() if code == 0]


def plain(line: str) -> str:
    """Return a log line without its process, time, place, numbers and addresses."""
    line = re.sub(r"\((\w+?)(?:_TP0)? pid=\d+\)", r"(\1)", line.strip())
    line = re.sub(r"\d\d-\d\d [\d:]{8} \[[\w.]+:\d+\]", "[]", line)
    return re.sub(r"[\d.,:/]+", "#", line)


@pytest.mark.parametrize(
    "start",
    [
        "Resolved architecture",
        "Using max model len",
        "Initializing a",
        "Starting to load model",
        "KV cache size",
        "init engine (profile, create kv cache, warmup model) took",
        '"auto" tool choice has been enabled',
        "Starting vLLM server on",
        "Started server process",
        "Waiting for application startup.",
        "Application startup complete.",
    ],
)
def test_vllm_prints_as_the_real_one(start: str) -> None:
    """Lines a run without a GPU prints too begin as the recorded ones do."""
    real = next(plain(line) for line in RECORD.read_text("utf-8").splitlines() if start in line)
    ours = next(plain(line) for line in printed("vllm") if start in line)

    def head(line: str) -> str:
        return line.partition(start)[0].replace("CPU", "GPU")

    assert head(real) == head(ours)
