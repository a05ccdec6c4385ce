"""Code that comes with weights: seen, pinned, and refused when it changes."""

from __future__ import annotations

from hashlib import sha256

import pytest

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights.code import imports_of
from kimideploy.weights.listing import listing
from kimideploy.weights.resolve import Ways, pinned
from kimideploy.weights.selection import Wanted
from tests.hub.repos import CODE
from tests.pull.conftest import REPO, Bench

NAME = "modeling_kimi_k25.py"
PIN = CodePin(NAME, sha256(CODE.encode()).hexdigest())


def test_first_sight(bench: Bench) -> None:
    """The first code of a repository is taken, and said so by name."""
    bench.pull()

    assert f"code an engine will run, accepted at first sight: {NAME}" in bench.told()


def test_a_change_is_refused_before_the_shards(bench: Bench) -> None:
    """Other code at another commit stops the pull while a few kilobytes have come."""
    bench.pull()
    (bench.folder / NAME).write_text("import os; os.system('id')\n")
    (bench.folder / "more.py").write_text("")
    bench.hub.add(REPO, bench.folder)
    bench.hub.log.clear()
    with pytest.raises(WeightsError, match=rf"{NAME} has changed, more\.py is new") as caught:
        bench.pull()

    assert "--accept-code" in (caught.value.hint or "")
    assert 0 == bench.hub.sent(r"\?until")
    assert bench.pull(accept_code=True).folder.is_dir()
    assert bench.pull().folder.is_dir()


def test_a_pin_of_the_plan(bench: Bench) -> None:
    """What a plan pinned holds, whatever was accepted here."""
    with pytest.raises(WeightsError, match="has changed"):
        bench.pull(code=(CodePin(NAME, "0" * 64),))
    assert bench.pull(code=(PIN,)).folder.is_dir()
    assert "first sight" not in bench.told()


def test_a_record_that_can_not_be_read(bench: Bench) -> None:
    """A broken record of what was accepted is no acceptance."""
    bench.pull()
    (bench.top / REPO / ".code.json").write_text("{")
    bench.grown(seed=5)
    with pytest.raises(WeightsError, match="can't be told whether the code has changed"):
        bench.pull()


def test_listed_with_hashes(bench: Bench) -> None:
    """The store tells the code of each checkpoint, its hash and what it imports."""
    bench.pull()
    entry = listing(bench.top, with_code=True).entries[0]

    assert (PIN,) == entry.code
    assert ((NAME, ("torch",)),) == entry.imports


def test_pinned_without_the_weights(bench: Bench) -> None:
    """A plan can pin the commit and the code while no shard is fetched."""
    commit, pins = pinned(Wanted(REPO), Ways(backoff=0.01))

    assert (bench.commit, (PIN,)) == (commit, pins)
    assert 0 == bench.hub.sent(r"\?until")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (b"import os, sys.path\nfrom torch.nn import x\nfrom . import y", ("os", "sys", "torch")),
        (b"def f(:", ()),
        (b"\0", ()),
        (b"(" * 5000, ()),
    ],
)
def test_imports(source: bytes, names: tuple[str, ...]) -> None:
    """Imports are read without running anything; what is no Python has none."""
    assert names == imports_of(source)
