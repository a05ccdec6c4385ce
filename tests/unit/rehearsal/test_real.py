"""The rewrite of a plan for the real vLLM on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimideploy.errors import RequestError
from kimideploy.rehearsal.real import on_tiny
from tests.unit.planning.test_decide import CATALOG, plan_for

TINY = Path("/somewhere/tiny")


def test_only_what_must_change_does() -> None:
    """Every word of the planned command stays, but those that are said to change."""
    from kimideploy.engines import complete  # noqa: PLC0415

    plan = complete(plan_for("8xH200", revision="a" * 40), CATALOG)
    tiny, changes = on_tiny(plan, TINY)

    before, after = plan.launches[0].argv, tiny.launches[0].argv
    said = " ".join(changes)
    assert after[2] == str(TINY)
    for word in before[3:]:
        assert word in after or word in said
    assert "--tool-call-parser" in after
    assert "--enable-auto-tool-choice" in after
    assert "--revision" not in after
    assert after[after.index("--tensor-parallel-size") + 1] == "1"
    assert after[-4:] == ("--load-format", "dummy", "--tokenizer-mode", "hf")


def test_another_engine_is_refused() -> None:
    """A plan for llama.cpp can't be rehearsed on vLLM."""
    with pytest.raises(RequestError):
        on_tiny(plan_for("1xRTX4090+384GiB"), TINY)
