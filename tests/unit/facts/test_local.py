"""Facts that were saved: they replay exactly, or the reason has a place."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.errors import RequestError
from kimideploy.facts.local import inspect_local, read_facts
from kimideploy.facts.types import (
    CpuFacts,
    DiskFacts,
    DriverFacts,
    EngineFacts,
    GpuFacts,
    GpuPeer,
    GpuProcess,
    HostFacts,
    MemoryFacts,
    PortFacts,
    Unknown,
)
from kimideploy.views.inspect import as_json

WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
BYTES = st.none() | st.integers(0, 1 << 62)
COUNT = st.none() | st.integers(0, 1000)
FLAG = st.none() | st.booleans()


def many(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Return tuples of a few."""
    return st.lists(strategy, max_size=3).map(tuple)


HOSTS = st.builds(
    HostFacts,
    hostname=st.none() | WORDS,
    cpu=st.builds(CpuFacts, model=st.none() | WORDS, cores=COUNT, flags=st.none() | many(WORDS)),
    memory=st.builds(MemoryFacts, total=BYTES, limit=BYTES, shm_free=BYTES),
    disks=many(st.builds(DiskFacts, mount=WORDS, free=BYTES)),
    driver=st.none() | st.builds(DriverFacts, version=st.none() | WORDS),
    gpus=many(
        st.builds(
            GpuFacts,
            index=st.integers(0, 15),
            memory_total=BYTES,
            mig=FLAG,
            power_limit_watts=st.none() | st.floats(0, 2000),
            peers=many(st.builds(GpuPeer, index=st.integers(0, 15), link=st.just("nvlink"))),
            processes=many(st.builds(GpuProcess, pid=st.integers(1, 1 << 22), used=BYTES)),
            error=st.none() | WORDS,
        )
    ),
    engines=many(st.builds(EngineFacts, engine=WORDS, path=WORDS, version=st.none() | WORDS)),
    ports=many(st.builds(PortFacts, port=st.integers(1, 65535), address=WORDS)),
    unknown=many(st.builds(Unknown, what=WORDS, reason=WORDS)),
)


@given(facts=HOSTS)
def test_saved_facts_replay(tmp_path_factory: pytest.TempPathFactory, facts: HostFacts) -> None:
    """Facts that were printed with --json are the same facts when read again."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    path.write_text(as_json(facts), encoding="utf-8")

    assert facts == read_facts(path)


def test_machine_replays(machine: Callable[[str], HostFacts], tmp_path: Path) -> None:
    """The facts of a whole node replay."""
    facts = machine("8xh200")
    path = tmp_path / "facts.json"
    path.write_text(as_json(facts), encoding="utf-8")

    assert facts == read_facts(path)


def test_this_machine() -> None:
    """This machine's facts are strict HostFacts that name it."""
    facts = inspect_local()

    assert facts.hostname
    assert facts == msgspec.json.decode(msgspec.json.encode(facts), type=HostFacts)


def test_stdin_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash reads the facts from stdin."""
    facts = HostFacts(hostname="here")
    stdin = io.TextIOWrapper(io.BytesIO(as_json(facts).encode()), encoding="ascii")
    monkeypatch.setattr("sys.stdin", stdin)

    assert facts == read_facts(Path("-"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            b'{"schema": "kimideploy.facts/9", "new": 1}',
            r"is of the schema 'kimideploy\.facts/9', this kimideploy reads",
        ),
        (b'{"hostname": "a"}', "schema"),
        (
            b'{\n "schema": "kimideploy.facts/1",\n "hostnme": "a"}',
            r"facts\.json:3:2: .*`hostname`",
        ),
        (b'{"schema": "kimideploy.facts/1", "hostname": 7}', r"facts\.json:1:\d+: "),
        (b'{"schema"', r"facts\.json:\d+:\d+: "),
        (b'{"schema": "kimideploy.facts/1", "new": ' + b"[" * 9999, r"facts\.json:1:1: .*deep"),
        (b"", r"facts\.json:1:1: "),
        (b"[]", r"facts\.json:1:1: "),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_file_that_holds_no_facts(tmp_path: Path, text: bytes, reason: str) -> None:
    """What is no file of facts is refused with file, place and reason."""
    path = tmp_path / "facts.json"
    path.write_bytes(text)

    with pytest.raises(RequestError, match=reason):
        read_facts(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is a wrong request that names it."""
    with pytest.raises(RequestError, match=r"facts\.json can't be read: No such file"):
        read_facts(tmp_path / "facts.json")


@given(st.text(max_size=200) | st.text('{}[]":, \nschemafacts/1kidploy&*!|>-', max_size=200))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any text is facts or a refused request, never a crash."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")

    with contextlib.suppress(RequestError):
        assert isinstance(read_facts(path), HostFacts)
