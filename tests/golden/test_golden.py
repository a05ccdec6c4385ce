"""Every golden case gives, byte for byte, what its folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import Catalog
from kimideploy.planning.types import NoFit, Plan
from tests.golden.cases import decision, folders, inputs, outputs
from tests.judges import JUDGES

LEAST_CASES = 30


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The shipped catalog alone: a user's overlays change no golden case."""
    return load_catalog()


def test_there_are_enough_cases() -> None:
    """At least thirty cases are kept, and some of them are a no."""
    assert len(folders()) >= LEAST_CASES


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_case(folder: Path, catalog: Catalog) -> None:
    """Decision, commands and units are those of the folder, and nothing else lies there."""
    made = outputs(folder, catalog)
    there = {path.name for path in folder.iterdir()}

    assert set(made) | inputs(folder, catalog) == there
    for name, text in made.items():
        assert (folder / name).read_text(encoding="utf-8") == text, (
            f"{folder.name}/{name} differs; if that is meant: python -m tests.golden.cases"
        )


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_command_is_accepted_by_the_engine(folder: Path, catalog: Catalog) -> None:
    """The engine's own parser takes every word of every command."""
    found = decision(folder, catalog)
    if isinstance(found, NoFit):
        assert found.ways_out or found.rejected
        return
    judge = JUDGES[found.candidate.engine]
    judge.build(print)
    for launch in found.launches:
        parsed = judge.parse(launch.argv, dict(launch.env))
        assert parsed.ok, f"{found.candidate.label}: {parsed.error}"


def test_no_command_repeats_a_flag(catalog: Catalog) -> None:
    """No command names a flag twice, except llama.cpp's -ot which adds up."""
    for folder in folders():
        found = decision(folder, catalog)
        if not isinstance(found, Plan):
            continue
        for launch in found.launches:
            flags = [w for w in launch.argv if w.startswith("--") and w != "--override-tensor"]
            assert len(flags) == len(set(flags)), folder.name
