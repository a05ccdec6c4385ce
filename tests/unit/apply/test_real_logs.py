"""The profiles' patterns against what real engines wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimideploy.apply.events import Progress
from kimideploy.apply.follow import Lines, Story
from kimideploy.catalog.failures import of_engine
from tests.unit.engines.plans import CATALOG

LOGS = Path(__file__).parents[2] / "judges" / "logs"


def _story(path: Path) -> tuple[Story, list[Progress]]:
    engine = path.name.partition("-")[0]
    known = of_engine(CATALOG.failures, engine)  # type: ignore[arg-type]
    story, told = Story(CATALOG.engines[engine].log, known), []  # type: ignore[index]
    for second, line in enumerate(Lines().feed(path.read_bytes())):
        found = story.read(line, float(second))
        told += [found] if found is not None else []
    return story, told


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: str(path.name))
def test_a_good_run_shows_no_cause_of_death(path: Path) -> None:
    """A pattern that a healthy engine's log fits would explain every death wrongly."""
    story, _ = _story(path)

    assert None is story.failure


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: str(path.name))
def test_a_good_run_is_followed_to_its_end(path: Path) -> None:
    """The stages are seen, and the last one is the server."""
    _, told = _story(path)

    stages = [progress.stage for progress in told]
    assert {"starting", "sizing the cache"} <= set(stages)
    assert "opening the server" == stages[-1]


def test_there_are_real_logs() -> None:
    """Without any the tests above would prove nothing."""
    assert [] != sorted(LOGS.glob("vllm-*.log"))
