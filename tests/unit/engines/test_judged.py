"""Each engine's own parser reads the commands we make, and understands what we meant."""

from __future__ import annotations

import os

import msgspec
import pytest

from kimideploy.catalog.types import EngineId
from kimideploy.engines import complete
from kimideploy.planning.types import Layout, Local, Plan
from tests.judges import JUDGES, Parsed
from tests.unit.engines.plans import CATALOG, DRAFT, REVISION, plan
from tests.unit.engines.test_commands import CASES

TWO_NODES: dict[EngineId, Plan] = {
    engine: plan(engine, "h100-80", layout=Layout(tp=8, pp=2), nodes=2, head_address="10.0.0.1")
    for engine in ("vllm", "sglang")
}


def judged(engine: str, argv: tuple[str, ...]) -> Parsed:
    """Return what the engine's parser says; without it the test fails under CI, else it skips."""
    judge = JUDGES[engine]
    if not judge.ready():
        if os.environ.get("CI"):
            pytest.fail(f"the parser of {engine} is not built: python -m tests.judges build")
        pytest.skip(f"the parser of {engine} is not built: python -m tests.judges build")
    return judge.parse(argv)


@pytest.mark.parametrize("name", CASES)
def test_the_engine_accepts_the_command(name: str) -> None:
    """The engine's own parser takes the whole command."""
    made = CASES[name][0]
    (launch,) = complete(made, CATALOG).launches
    parsed = judged(made.candidate.engine, launch.argv)

    assert (True, None) == (parsed.ok, parsed.error)


@pytest.mark.parametrize("engine", TWO_NODES)
def test_the_engine_accepts_both_nodes(engine: EngineId) -> None:
    """The parser takes the head's words and the second node's, and reads their ranks."""
    read = [judged(engine, launch.argv) for launch in complete(TWO_NODES[engine], CATALOG).launches]

    assert [(True, 0), (True, 1)] == [(p.ok, p.values["node_rank"]) for p in read]


@pytest.mark.parametrize("engine", JUDGES)
def test_the_engine_refuses_a_flag_it_does_not_know(engine: str) -> None:
    """A judge that accepts anything would prove nothing."""
    name = next(name for name, (made, _, _) in CASES.items() if made.candidate.engine == engine)
    (launch,) = complete(CASES[name][0], CATALOG).launches

    assert not judged(engine, (*launch.argv, "--no-such-flag-as-this")).ok


def test_vllm_serves_from_what_was_pulled() -> None:
    """A pulled folder takes the repository's place, and is read ahead where that is better."""
    local = Local("/srv/kimi/0123", draft="/srv/draft/4567", prefetch=True)
    made = msgspec.structs.replace(plan(draft=DRAFT, revision=REVISION), local=local)
    (launch,) = complete(made, CATALOG).launches
    parsed = judged("vllm", launch.argv)

    assert parsed.ok, parsed.error
    assert "/srv/kimi/0123" in launch.argv
    assert "prefetch" == parsed.values["safetensors_load_strategy"]
    assert "/srv/draft/4567" in str(parsed.values["speculative_config"])
    assert parsed.values["revision"] is None


def test_both_take_a_pinned_draft() -> None:
    """The draft model's own commit reaches the engine that fetches it; a folder has none."""
    made = plan(draft=DRAFT)
    pinned = msgspec.structs.replace(made, pins=msgspec.structs.replace(made.pins, draft=REVISION))
    vllm = judged("vllm", complete(pinned, CATALOG).launches[0].argv)
    local = msgspec.structs.replace(pinned, local=Local("/srv/kimi", draft="/srv/draft"))
    pulled = judged("vllm", complete(local, CATALOG).launches[0].argv)
    other = plan("sglang", "b300", kv="fp8", draft=DRAFT)
    other = msgspec.structs.replace(other, pins=msgspec.structs.replace(other.pins, draft=REVISION))
    sglang = judged("sglang", complete(other, CATALOG).launches[0].argv)

    assert (vllm.ok, pulled.ok, sglang.ok) == (True, True, True)
    assert REVISION in str(vllm.values["speculative_config"])
    assert REVISION not in str(pulled.values["speculative_config"])
    assert REVISION == sglang.values["speculative_draft_model_revision"]


def test_vllm_understands() -> None:
    """What vLLM reads is what the plan decided."""
    made = plan(layout=Layout(tp=8, dcp=8, ep=True), kv="fp8", revision=REVISION, draft=DRAFT)
    (launch,) = complete(made, CATALOG).launches
    values = judged("vllm", launch.argv).values

    expected = {
        "host": "127.0.0.1",
        "port": 8000,
        "served_model_name": ["kimi-k2.7-code"],
        "revision": REVISION,
        "code_revision": REVISION,
        "tensor_parallel_size": 8,
        "decode_context_parallel_size": 8,
        "enable_expert_parallel": True,
        "max_model_len": 131_072,
        "gpu_memory_utilization": 0.9,
        "kv_cache_dtype": "fp8",
        "mm_encoder_tp_mode": "data",
        "tool_call_parser": "kimi_k2",
        "reasoning_parser": "kimi_k2",
        "enable_auto_tool_choice": True,
        "override_generation_config": {"temperature": 1.0, "top_p": 0.95},
        "speculative_config": {"method": "eagle3", "model": DRAFT, "num_speculative_tokens": 3},
    }
    assert expected == {name: values[name] for name in expected}


def test_sglang_understands() -> None:
    """What SGLang reads is what the plan decided."""
    (launch,) = complete(plan("sglang", "b300", kv="fp8", draft=DRAFT), CATALOG).launches
    values = judged("sglang", launch.argv).values

    expected = {
        "model_path": "moonshotai/Kimi-K2.7-Code",
        "host": "127.0.0.1",
        "port": 30000,
        "served_model_name": "kimi-k2.7-code",
        "tp_size": 8,
        "context_length": 131_072,
        "mem_fraction_static": 0.9,
        "kv_cache_dtype": "fp8_e4m3",
        "attention_backend": "tokenspeed_mla",
        "tool_call_parser": "kimi_k2",
        "reasoning_parser": "kimi_k2",
        "speculative_algorithm": "EAGLE3",
        "speculative_draft_model_path": DRAFT,
        "speculative_num_draft_tokens": 4,
    }
    assert expected == {name: values[name] for name in expected}


def test_ktransformers_understands() -> None:
    """What KTransformers reads is what the plan decided."""
    (launch,) = complete(CASES["ktransformers on four cards"][0], CATALOG).launches
    values = judged("ktransformers", launch.argv).values

    expected = {
        "kt_method": "RAWINT4",
        "kt_cpuinfer": 96,
        "kt_threadpool_count": 2,
        "kt_num_gpu_experts": 30,
        "kt_gpu_prefill_token_threshold": 400,
        "max_total_tokens": 131_072,
        "tool_call_parser": "kimi_k2",
        "reasoning_parser": "kimi_k2",
    }
    assert expected == {name: values[name] for name in expected}
