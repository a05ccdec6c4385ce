"""Hubs that tell nonsense: every answer is a refusal in words, and nothing is written elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimideploy.errors import KimiError
from kimideploy.weights.resolve import Ways, resolve
from kimideploy.weights.selection import Wanted
from tests.hub import server
from tests.hub.server import Entry, Fault
from tests.pull.conftest import REPO, Bench

SHA, OID = "ab" * 32, "0" * 40
NAME = "model.safetensors"


class Odd(Entry):
    """An entry that is told as it was given."""

    told: Any = None

    def listed(self, name: str) -> Any:  # noqa: ARG002
        """Return what a tree says of it."""
        return self.told


def lies(bench: Bench, *told: Any) -> str:
    """Let the hub list *told*; returns why the pull was refused."""
    files: dict[str, Entry] = {}
    for number, one in enumerate(told):
        kind = type("Told", (Odd,), {"told": one})
        files[str(number)] = kind(1, OID)
    bench.hub.publish(REPO, files)
    with pytest.raises(KimiError) as caught:
        bench.pull(backoff=0.0001)
    return caught.value.message


def entry(**changed: Any) -> dict[str, Any]:
    """Return a file of a tree, with something else about it."""
    return {"type": "file", "path": NAME, "size": 1, "oid": OID, **changed}


def lfs(**changed: Any) -> dict[str, Any]:
    """Return a large file of a tree, with something else about it."""
    return entry(lfs={"oid": SHA, "size": 1, "pointerSize": 1, **changed})


@pytest.mark.parametrize(
    "told",
    [
        {}, "text", 5, None, [], entry(path=5), entry(path=None), entry(size=None), entry(size="9"),
        entry(size=1.5), entry(size=True), entry(size=-1), entry(size=10**400), entry(oid=None),
        entry(oid="zz"), entry(lfs=[]), entry(lfs={}), lfs(oid=5), lfs(size=None), lfs(oid="x"),
        entry(xetHash=7), entry(type="link"), lfs(size=10**18),
    ],
    ids=str,
)  # fmt: skip
def test_nonsense(bench: Bench, told: Any) -> None:
    """Sizes, hashes and names of other kinds are refused; no traceback, no file."""
    assert lies(bench, told)
    assert not list(bench.top.rglob("*.part"))


@pytest.mark.parametrize(
    "path",
    ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "x\u202e.safetensors"],
)
def test_names_in_an_index(bench: Bench, tmp_path: Path, path: str) -> None:
    """A name that the index and the tree agree on still has to stay in its folder."""
    index = tmp_path / "index"
    index.write_text(f'{{"weight_map": {{"w": "{path}"}}}}')
    folder = tmp_path / "lie"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_bytes(index.read_bytes())
    commit = bench.hub.add(REPO, folder)
    files = dict(bench.hub.repos[REPO][commit])
    files[path] = Entry(1, OID, SHA)
    bench.hub.publish(REPO, files)
    with pytest.raises(KimiError, match="could leave the folder"):
        bench.pull()

    assert not list(tmp_path.rglob("x*.safetensors"))


@pytest.mark.parametrize("body", ["null", "[]", "{", "5", '{"sha": 7}', "\xff", "[" * 5000])
def test_answers_that_are_none(bench: Bench, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer about the revision that says nothing usable is the hub's fault, in words."""
    monkeypatch.setattr(
        server._Handler, "_about", lambda self, *_: self._answer(200, body.encode("latin-1"))
    )
    with pytest.raises(KimiError) as caught:
        bench.pull(backoff=0.0001)

    assert REPO in caught.value.message


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.just("file"), "path": st.text(max_size=30), "oid": st.text(max_size=40)},
            optional={"size": st.integers() | st.none(), "lfs": st.none() | st.just({"oid": SHA})},
        ),
        max_size=4,
    )
)
def test_any_tree(bench: Bench, told: list[dict[str, Any]]) -> None:
    """Whatever a tree holds, it is a manifest that passed its checks or a refusal."""
    files: dict[str, Entry] = {
        str(number): type("Told", (Odd,), {"told": one})(1, OID) for number, one in enumerate(told)
    }
    bench.hub.publish(REPO, files)
    try:
        found = resolve(Wanted(REPO), Ways(backoff=0.0))
    except KimiError:
        return
    assert found.items


def test_headers_that_lie(bench: Bench) -> None:
    """A redirect with a port or an address that is none is refused, not a traceback."""
    for target in ("http://127.0.0.1:99999999/x", "http://[::1/x", "http:///x", "\x00"):
        bench.hub.faults = [
            Fault("GET .*resolve", "redirect", 99, status=302, headers={"Location": target})
        ]
        with pytest.raises(KimiError):
            bench.pull(backoff=0.0001)
