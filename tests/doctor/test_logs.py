"""The table of known failures against excerpts of logs, and against logs of healthy runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.catalog.failures import of_engine
from kimideploy.catalog.types import EngineId
from kimideploy.doctor.causes import causes_in
from tests.unit.engines.plans import CATALOG

HERE = Path(__file__).parent / "logs"
SICK = sorted((HERE / "sick").glob("*.log"))
REAL = Path(__file__).parents[1] / "judges" / "logs"
HEALTHY = [*sorted((HERE / "healthy").glob("*.log")), *sorted(REAL.glob("*.log"))]
FAILURES = CATALOG.failures


@pytest.mark.parametrize("path", SICK, ids=lambda path: path.stem)
def test_an_excerpt_leads_to_its_failure(path: Path) -> None:
    """The excerpt shows its own failure, and no other one."""
    assert [path.stem] == [one.failure.id for one in causes_in(path.read_text("utf-8"), FAILURES)]


@pytest.mark.parametrize("path", SICK, ids=lambda path: path.stem)
def test_an_excerpt_names_its_source(path: Path) -> None:
    """The first line says where the error was seen, and the table says the same."""
    failure = next(one for one in FAILURES if one.id == path.stem)

    assert f"# source: {failure.link}" == path.read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.name)
def test_a_healthy_log_is_no_alarm(path: Path) -> None:
    """No line of a healthy run is taken for a failure, whatever engine's log it is."""
    found = causes_in(path.read_text("utf-8", "replace"), FAILURES)

    assert [] == [(one.failure.id, one.line) for one in found]


def test_every_failure_has_its_excerpt() -> None:
    """Adding a failure is adding a row and a file."""
    assert {one.id for one in FAILURES} == {path.stem for path in SICK}
    assert len(FAILURES) >= 40
    assert len(HEALTHY) >= 6


def test_every_engine_has_failures_of_its_own() -> None:
    """All four engines and all layers below them are in the table."""
    words = {word for one in FAILURES for word in one.of}

    assert {*get_args(EngineId)} - {"rehearsal"} <= words
    assert {"nccl", "cuda", "nvidia", "kernel", "systemd", "loader", "container"} <= words


def test_every_failure_says_enough() -> None:
    """A cause, a cure that is not empty, and a link that is one."""
    for one in FAILURES:
        assert re.fullmatch(r"https://\S+", one.link)
        assert min(map(len, (one.cause, one.fix, one.where))) > 5


def test_no_cure_touches_clocks_or_power() -> None:
    """The table does not advise what kimideploy itself never does."""
    forbidden = re.compile(r"--?(lgc|lock-gpu-clocks|power-limit|pl)\b|-mig 1")

    assert [] == [one.id for one in FAILURES if forbidden.search(one.fix)]


def test_an_engine_is_not_blamed_for_another() -> None:
    """With --engine only its own failures and those of the layers below are looked for."""
    llama = (HERE / "sick" / "llama-vram.log").read_text("utf-8")

    assert () == causes_in(llama, of_engine(FAILURES, "vllm"))
    assert 1 == len(causes_in(llama, of_engine(FAILURES, "llamacpp")))


def test_the_special_cause_explains_the_general_one() -> None:
    """Of several failures in one log the one that says most comes first."""
    text = "\n".join(
        (HERE / "sick" / f"{name}.log").read_text("utf-8")
        for name in ("engine-init", "worker-died", "gpu-oom")
    )

    assert "gpu-oom" == causes_in(text, FAILURES)[0].failure.id


def test_a_line_is_counted_where_it_stands() -> None:
    """Number and count are those of the lines."""
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"

    (cause,) = causes_in(f"a\n{line} 1\nb\n{line} 2\n", FAILURES)

    assert (4, 2, f"{line} 2") == (cause.number, cause.times, cause.line)


@given(st.text(max_size=400))
def test_any_text_is_read(text: str) -> None:
    """Whatever a log holds, looking through it ends without a failure of ours."""
    for cause in causes_in(text, FAILURES):
        assert cause.number >= 1


def test_a_long_line_takes_no_time() -> None:
    """Engines print whole configurations on one line, and none of the patterns falls for it."""
    text = "\n".join(
        ["x" * 100_000, "a=" * 50_000, "(" * 20_000, "CUDA error " * 5_000, "Xid " * 20_000]
    )

    causes_in(text, FAILURES)
