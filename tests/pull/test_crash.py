"""Killed at any moment: the next run ends with the same files and fetches little twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kimideploy.weights.part import BLOCK
from tests.hub.repos import kimi, safetensors, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, begin, leftovers, mismatches

KILLS = 100
WORKERS = 4
FEW = ("--max-workers", str(WORKERS))
#: bytes that may be fetched again for each file in flight when a run is killed
TWICE = 16 << 20
#: bytes that are: a block, and what was on its way
LOST = BLOCK + (768 << 10)
#: bytes a second of each connection: the hub is the slow one, so that little is on its way
RATE = 40e6


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint of 64 shards, 62 of 1.5 MB and two of 30 MB."""
    folder = kimi(tmp_path_factory.mktemp("origin") / "kimi", count=64, size=1_500_000)
    chance = random.Random(3)
    for number in (20, 50):
        data = chance.randbytes(30_000_000)
        safetensors(folder / shards(64)[number], f"model.layers.{number}.weight", data)
    return folder


def far_enough(process: subprocess.Popen[str], wanted: float) -> None:
    """Wait until a pull has brought *wanted* bytes by itself, or has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "moved" and event["done"] - event.get("kept", 0) >= wanted:
            return


def test_killed_at_a_hundred_moments(bench: Bench, origin: Path) -> None:
    """SIGKILL at random moments of pulls of 64 files: each goes on where the one before was.

    One run after the other is killed, half of them at any moment and half when much has come; when
    one comes through, the store is emptied and it begins anew. The hub's log says what came twice.
    """
    bench.commit = bench.hub.add(REPO, origin)
    bench.hub.faults = [Fault(r"\?until", "slow", 1 << 30, rate=RATE)]
    chance = random.Random(1)
    entries = bench.hub.repos[REPO][bench.commit]
    size = sum(e.size for n, e in entries.items() if n.endswith((".safetensors", ".model")))
    kills, since, brought = 0, 0, 0
    twice: list[int] = []
    while kills < KILLS or not twice:
        process = begin(bench, *FEW)
        assert process.stdout is not None
        if kills % 2:
            # Why not from the start of the process: half a second of it is imports, no pull.
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.6))
        else:
            far_enough(process, chance.uniform(10e6, 50e6))
        if process.poll() is None and kills < KILLS:
            process.send_signal(signal.SIGKILL)
            kills += 1
            since += 1
        process.communicate()
        final = bench.top / REPO / bench.commit
        if process.returncode == 0:
            assert [] == leftovers(bench.top)
        if final.exists():
            assert [] == mismatches(final, REPO, bench.commit, bench.hub.url)
            _settle(bench)
            sent = bench.hub.sent(r"safetensors\?|tiktoken")
            assert sent - size <= since * WORKERS * TWICE
            twice.append(sent - size)
            brought += sent
            since = 0
            subprocess.run(["rm", "-rf", bench.top], check=True)
            bench.hub.log.clear()

    assert brought > 1_000_000_000
    assert sum(twice) <= KILLS * WORKERS * LOST


def test_a_large_file_killed_in_several_places(bench: Bench, tmp_path: Path) -> None:
    """Workers share one file and are killed: only what was in flight comes twice."""
    folder = tmp_path / "large"
    folder.mkdir()
    safetensors(folder / "model.safetensors", "w", bytes(range(256)) * 1_600_000)
    bench.repo, size = "org/large", (folder / "model.safetensors").stat().st_size
    bench.commit = bench.hub.add(bench.repo, folder)
    chance, kills = random.Random(2), 0
    final = bench.top / bench.repo / bench.commit
    while not final.exists():
        process = begin(bench, *FEW, "--max-rate", "250MB")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.1, 0.6))
        if process.poll() is None and kills < 12:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    _settle(bench)

    assert kills >= 2
    assert bench.hub.sent() - size <= kills * WORKERS * TWICE
    assert [] == mismatches(final, bench.repo, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def _settle(bench: Bench) -> None:
    """Wait until the hub has noticed that nobody reads any more."""
    count = -1
    while count != len(bench.hub.log):
        count = len(bench.hub.log)
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ended_by_a_signal(bench: Bench, origin: Path, name: str) -> None:
    """A signal ends a pull soon, with the exit code of an interruption and no half folder."""
    bench.commit = bench.hub.add(REPO, origin)
    process = begin(bench, *FEW, "--max-rate", "10MB")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=20)

    assert (130, "") == (process.returncode, err)
    assert time.monotonic() - began < 5
    assert not (bench.top / REPO / bench.commit).exists()


@pytest.mark.parametrize("match", [r"\?until", "resolve"])
def test_ended_while_the_hub_says_nothing(bench: Bench, origin: Path, match: str) -> None:
    """A hub that takes requests and never answers does not hold up who has had enough."""
    bench.commit = bench.hub.add(REPO, origin)
    bench.hub.faults = [Fault(f"{match}.*", "mute", 999)]
    process = begin(bench, *FEW)
    if match != "resolve":
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(1.0)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert 130 == process.returncode
    assert time.monotonic() - began < 4


def test_two_at_once(bench: Bench, origin: Path) -> None:
    """The second pull of the same commit is told that someone is at it, and touches nothing."""
    bench.commit = bench.hub.add(REPO, origin)
    first = begin(bench, *FEW, "--max-rate", "60MB")
    assert first.stdout is not None
    first.stdout.readline()
    time.sleep(0.2)
    second = begin(bench, *FEW)
    _, said = second.communicate(timeout=30)
    first.communicate(timeout=60)

    assert 6 == second.returncode
    assert "another kimideploy pulls" in json.loads(said)["error"]["message"]
    assert 0 == first.returncode
    final = bench.top / REPO / bench.commit
    assert [] == mismatches(final, REPO, bench.commit, bench.hub.url)


def test_many_at_once_end_with_one_folder(bench: Bench, origin: Path) -> None:
    """Of five pulls that start together one fetches; the folder is right whoever it is."""
    bench.commit = bench.hub.add(REPO, origin)
    every = [begin(bench, *FEW) for _ in range(5)]
    codes = {process.communicate(timeout=60)[0] and process.returncode for process in every}

    assert codes <= {0, 6, ""}
    assert 0 in [process.returncode for process in every]
    final = bench.top / REPO / bench.commit
    assert [] == mismatches(final, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def test_a_lock_dies_with_its_owner(bench: Bench, origin: Path) -> None:
    """After a kill nobody has to remove a lock by hand."""
    bench.commit = bench.hub.add(REPO, origin)
    first = begin(bench, *FEW, "--max-rate", "10MB")
    assert first.stdout is not None
    first.stdout.readline()
    time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = begin(bench, *FEW)
    second.communicate(timeout=60)

    assert 0 == second.returncode
