"""speed.yaml and overhead.yaml: what is asked of them, and what they are refused for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kimideploy.catalog.fitted import MARGINS, OVERHEAD, SPEED, STANDINGS
from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import EngineId
from kimideploy.errors import RequestError
from kimideploy.planning.evidence import Standing
from kimideploy.planning.overhead import Settings, Situation, overhead
from kimideploy.planning.steps import Machine, Work, accepted, decode_step, prefill_seconds
from kimideploy.planning.types import Layout
from kimideploy.resources import shipped

CATALOG = load_catalog()
KIMI = CATALOG.architectures["kimi-k2"]
ENGINES: tuple[EngineId, ...] = ("vllm", "sglang", "ktransformers", "llamacpp")


class Asked(Mapping[str, float]):
    """Parameters that are all 1 and remember which of them were needed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> float:
        """Return 1 and remember the name."""
        self.names.add(name)
        return 1.0

    def get(self, name: str, default: object = None) -> float:
        """Return the default: a factor may be missing."""
        assert name.partition(".")[0] in self.names | {*SPEED, *OVERHEAD, "small"}
        assert default == 1.0
        return 1.0

    def __iter__(self) -> Iterator[str]:
        """Yield nothing: nobody needs to ask for all names."""
        return iter(())

    def __len__(self) -> int:
        """Return 0, as there is nothing to go through."""
        return 0


def refused(folder: Path, place: str, old: str, new: str) -> str:
    """Return what a changed copy of a shipped file is refused with."""
    text = (shipped("profiles") / place).read_text(encoding="utf-8")
    assert old in text
    (folder / place).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        load_catalog([folder])
    return caught.value.message


def line_of(place: str, word: str) -> int:
    """Return the line of a shipped file that a word stands in first."""
    lines = (shipped("profiles") / place).read_text(encoding="utf-8").splitlines()
    return next(index for index, line in enumerate(lines, 1) if word in line)


def test_what_overhead_asks_for_is_required() -> None:
    """Every engine's memory is counted with required names, and each of these is used."""
    asked = Asked()
    for engine in ENGINES:
        for link in ("pcie", "nvlink", "xgmi"):
            layout = Layout(tp=8, dcp=8)
            situation = Situation(engine, KIMI, layout, "sm90", link, 140 << 30, 3)
            overhead(situation, Settings(0.9, 8192, 256), asked)

    assert asked.names == set(OVERHEAD)


def test_what_speed_asks_for_is_required() -> None:
    """Every kind of pass is timed with required names, and all of these but the start are used."""
    asked = Asked()
    for engine in ENGINES:
        for link in ("pcie", "nvlink", "xgmi"):
            machine = Machine(engine, "sm90", 1e12, 1e14, link, 9e11)
            for form in CATALOG.formats.values():
                work = Work(KIMI, form, Layout(tp=8, dcp=8), "bf16", draft=3, hosted=0.5)
                decode_step(work, machine, asked, sequences=4, context=1000)
                prefill_seconds(work, machine, asked, 1000)
                accepted(work, asked)

    assert asked.names == set(SPEED) - {"first_token"}


def test_bars_are_named_as_evidence_is() -> None:
    """There is a spread for every standing a prediction can have."""
    assert STANDINGS == Standing.__args__  # type: ignore[attr-defined]
    assert set(STANDINGS) <= set(CATALOG.speed.spreads)
    assert set(MARGINS) <= set(CATALOG.overhead.spreads)


def test_bars_widen_with_distance() -> None:
    """What was measured less near has no narrower error bar."""
    factors = [CATALOG.speed.spreads[name].factor for name in STANDINGS]
    margins = [int(CATALOG.overhead.spreads[name].bytes) for name in MARGINS]

    assert factors == sorted(factors)
    assert factors[0] > 1
    assert margins == sorted(margins)


@pytest.mark.parametrize("name", [*SPEED, *OVERHEAD])
def test_parameters_say_where_they_come_from(name: str) -> None:
    """A parameter has a unit and a reason, and is its prior unless measurements moved it."""
    known = {**CATALOG.speed.parameters, **CATALOG.overhead.parameters}[name]

    assert known.unit
    assert known.note
    if not known.fitted:
        assert known.prior == pytest.approx(known.value, rel=0.005)


@pytest.mark.parametrize(
    ("place", "word", "new", "says"),
    [
        ("speed.yaml", "value: 170000000000.0", "value: 0", "Expected `float` > 0.0"),
        ("speed.yaml", "value: 170000000000.0", "value: .nan", "Expected `float`, got `str`"),
        ("speed.yaml", "value: 170000000000.0", "value: 1.0e999", "Expected `float`, got `str`"),
        ("speed.yaml", "prior: 0.6, width: 0.25", "prior: 0.6", "missing required field `width`"),
        ("speed.yaml", "factor: 2.5", "factor: 0.9", "Expected `float` >= 1.0"),
        ("speed.yaml", "factor: 2.5", "factr: 2.5", "`factr` is not a known key"),
        ("overhead.yaml", "bytes: 0.8 GiB", "bytes: 0.8 GuB", "unknown unit"),
        ("overhead.yaml", "source: kt}", "source: kx}", "source `kx` is not in `sources:`"),
    ],
)
def test_wrong_values_are_placed(
    tmp_path: Path, place: str, word: str, new: str, says: str
) -> None:
    """A value that can't be is refused with its file, line and column."""
    message = refused(tmp_path, place, word, new)

    assert message.startswith(f"{tmp_path / place}:{line_of(place, word)}:")
    assert says in message


@pytest.mark.parametrize(
    ("place", "word", "says"),
    [
        ("speed.yaml", "  experts: {", "`parameters` lacks `experts`"),
        ("speed.yaml", "  guess: {", "`spreads` lacks `guess`"),
        ("overhead.yaml", "  lazy: {", "`parameters` lacks `lazy`"),
        ("overhead.yaml", "  other: {", "`spreads` lacks `other`"),
    ],
)
def test_missing_names_are_refused(tmp_path: Path, place: str, word: str, says: str) -> None:
    """A file of the user's without what a prediction needs is refused when it is loaded."""
    assert says in refused(tmp_path, place, word, word.replace(": {", "x: {"))
