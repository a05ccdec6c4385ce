"""The rewrite of a plan for the real vLLM on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimideploy.engines import complete
from kimideploy.errors import RequestError
from kimideploy.planning.types import Plan
from kimideploy.rehearsal.real import on_nano
from tests.unit.planning.test_decide import CATALOG, plan_for

NANO = Path("/somewhere/nano")


def planned(hardware: str, **wishes: object) -> Plan:
    """Return a complete plan for *hardware*."""
    return complete(plan_for(hardware, **wishes), CATALOG)


@pytest.mark.parametrize(
    ("hardware", "changed"),
    [
        ("8xH200", {"--tensor-parallel-size": "1", "--max-model-len": "8192"}),
        ("2x8xH100-80GB", {
            "--tensor-parallel-size": "1", "--pipeline-parallel-size": "1", "--nnodes": "1",
            "--max-model-len": "8192",
        }),
        ("8xB200", {"--tensor-parallel-size": "1", "--max-model-len": "8192"}),
    ],
)  # fmt: skip
def test_only_what_must_change_does(hardware: str, changed: dict[str, str]) -> None:
    """Every word of the planned command stays in its place, but those that are said to change."""
    plan = planned(hardware, engine="vllm", revision="a" * 40, kv_dtype="bf16")

    nano, changes = on_nano(plan, NANO)

    before = list(plan.launches[0].argv)
    before[2] = str(NANO)
    for flag, value in changed.items():
        place = before.index(flag) + 1
        assert f"{flag} {before[place]} → {value}" in changes
        before[place] = value
    assert (*before, "--tokenizer-mode", "hf") == nano.launches[0].argv
    assert len(changed) + 2 + (len(plan.launches) > 1) == len(changes)


def test_what_a_cpu_can_not_hold() -> None:
    """An fp8 cache becomes bfloat16, a draft is left out, and both are said."""
    plan = planned("8xH200", engine="vllm", kv_dtype="fp8", draft=True)

    nano, changes = on_nano(plan, NANO)

    argv = nano.launches[0].argv
    assert "bfloat16" == argv[argv.index("--kv-cache-dtype") + 1]
    assert "--kv-cache-dtype fp8 → bfloat16" in changes
    assert not [word for word in argv if "speculative" in word]
    assert [change for change in changes if change.startswith("--speculative-config {")]


def test_a_users_own_words() -> None:
    """A flag and its value in one word are changed as two are; others are left alone."""
    words = ("--moe-backend=triton", "--seed=4")
    plan = planned("8xH200", engine="vllm", engine_args=words)

    nano, changes = on_nano(plan, NANO)

    assert "--seed=4" in nano.launches[0].argv
    assert [change for change in changes if change.startswith("--moe-backend triton left out")]


def test_another_engine_is_refused() -> None:
    """A plan for llama.cpp can't be rehearsed on vLLM."""
    with pytest.raises(RequestError, match="this one is for llamacpp"):
        on_nano(plan_for("1xRTX4090+384GiB"), NANO)
