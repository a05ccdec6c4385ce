"""Code that comes with weights: seen, pinned, and refused when it changes."""

from __future__ import annotations

import json
import shlex
import subprocess
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
TEMPLATE = CodePin("chat_template.jinja", sha256(b"{{ messages }}").hexdigest())
PINS = (TEMPLATE, CodePin(NAME, sha256(CODE.encode()).hexdigest()))


def test_first_sight(bench: Bench) -> None:
    """The first code of a repository is taken, and said so by name."""
    bench.pull()

    assert (
        f"code an engine will run, accepted at first sight: {TEMPLATE.path}, {NAME}" in bench.told()
    )


def test_a_change_is_refused_before_the_shards(bench: Bench) -> None:
    """Other code at another commit stops the pull while a few kilobytes have come."""
    bench.pull()
    (bench.folder / NAME).write_text("import os; os.system('id')\n")
    (bench.folder / "more.py").write_text("")
    bench.hub.add(REPO, bench.folder)
    bench.hub.log.clear()
    with pytest.raises(WeightsError, match=rf"{NAME} has changed, more\.py is new") as caught:
        bench.pull()

    shown = (caught.value.hint or "").partition(";")[0]
    told = subprocess.run(shlex.split(shown), capture_output=True, text=True, check=False).stdout
    assert "-import torch\n" in told
    assert "+import os; os.system('id')\n" in told
    assert 0 == bench.hub.sent(r"\?until")
    assert bench.pull(accept_code=True).folder.is_dir()
    assert 1 == bench.told().count(f"accepted from now on: {NAME} has changed, more.py is new")
    assert "first sight" not in bench.told()
    assert bench.pull().folder.is_dir()
    assert "accepted" not in bench.told()


def test_a_pin_of_the_plan(bench: Bench) -> None:
    """What a plan pinned holds, whatever was accepted here."""
    with pytest.raises(WeightsError, match="has changed"):
        bench.pull(code=(TEMPLATE, CodePin(NAME, "0" * 64)))
    assert bench.pull(code=PINS).folder.is_dir()
    assert "first sight" not in bench.told()


def test_a_pin_of_the_plan_for_what_is_here(bench: Bench) -> None:
    """A plan whose pins are of other code than lies here is refused, also without a fetch."""
    bench.pull()
    bench.hub.log.clear()
    wanted = Wanted(REPO, bench.commit)
    with pytest.raises(WeightsError, match="has changed"):
        bench.pull(wanted=wanted, code=(TEMPLATE, CodePin(NAME, "0" * 64)))
    assert bench.pull(wanted=wanted, code=PINS).folder.is_dir()
    assert not bench.hub.log


def test_another_template(bench: Bench) -> None:
    """A chat template is a program, too: another one has to be accepted."""
    bench.pull()
    (bench.folder / TEMPLATE.path).write_text("{{ messages[-1] }}")
    bench.hub.add(REPO, bench.folder)
    with pytest.raises(WeightsError, match=r"chat_template\.jinja has changed"):
        bench.pull()


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoConfig": "evil/code--configuration.Config"}},
        {"auto_map": {"AutoTokenizer": ["evil/code--tok.Tok", None]}},
        {"text_config": {"auto_map": {"AutoModel": "evil/code--modeling.Model"}}},
    ],
)
def test_code_of_another_repository(bench: Bench, config: dict[str, object]) -> None:
    """A configuration that takes code from elsewhere evades every pin: it has to be accepted."""
    (bench.folder / "config.json").write_text(json.dumps(config))
    bench.hub.add(REPO, bench.folder)
    with pytest.raises(WeightsError, match=r"config\.json has .* take code from 'evil/code'"):
        bench.pull()

    assert 0 == bench.hub.sent(r"\?until")
    assert bench.pull(accept_code=True).folder.is_dir()


@pytest.mark.parametrize("config", ["[]", "{", '{"auto_map": 5}', '{"auto_map": {"A": "m.C"}}'])
def test_code_of_its_own(bench: Bench, config: str) -> None:
    """Its own modules are what the pins are for; what is no configuration names no code."""
    (bench.folder / "config.json").write_text(config)
    bench.hub.add(REPO, bench.folder)

    assert bench.pull().folder.is_dir()


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

    assert PINS == entry.code
    assert ("torch",) == dict(entry.imports)[NAME]


def test_pinned_without_the_weights(bench: Bench) -> None:
    """A plan can pin the commit and the code while no shard is fetched."""
    commit, pins = pinned(Wanted(REPO), Ways(backoff=0.01))

    assert (bench.commit, PINS) == (commit, pins)
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
