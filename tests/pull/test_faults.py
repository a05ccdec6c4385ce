"""A hub that breaks in every way that was seen: the pull ends right, or says why it can't."""

from __future__ import annotations

import re
import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from kimideploy.errors import WeightsError
from kimideploy.weights.events import Damaged, Retried
from kimideploy.weights.selection import Wanted
from tests.hub.repos import shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, leftovers, mismatches

FIRST = shards(4)[0]
CDN = rf"^GET /.*{FIRST}\?until"
PASSING = {
    "429 with RateLimit": Fault(CDN, "status", 2, status=429, headers={"RateLimit": '"x";r=0;t=0'}),
    "429 with Retry-After": Fault(CDN, "status", 2, status=429, headers={"Retry-After": "0"}),
    "429 of the listing": Fault(
        "GET .*tree", "status", 2, status=429, headers={"Retry-After": "0"}
    ),
    "503 of a file": Fault(CDN, "status", 3, status=503),
    "500 of the redirect": Fault("GET .*resolve", "status", 2, status=500),
    "502 of the branch": Fault("GET /api/models/[^/]*/[^/]*$", "status", 1, status=502),
    "408": Fault(CDN, "status", 1, status=408),
    "cut at once": Fault(CDN, "cut", 2),
    "cut on the way": Fault(CDN, "cut", 3, at=40_000),
    "one bit wrong": Fault(CDN, "flip", 1, at=50_000),
    "one bit wrong, twice": Fault(CDN, "flip", 2, at=50_000),
    "a byte too few": Fault(CDN, "length", 2),
    "another range": Fault(CDN, "span", 1),
    "a signed address ran out": Fault(CDN, "status", 1, status=403),
    "a redirect to nowhere": Fault("GET .*resolve", "redirect", 1, status=302),
    "the index with a wrong bit": Fault("GET .*index", "flip", 1, at=20),
    "the config with a wrong bit": Fault("GET .*/config.json", "flip", 1, at=5),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes(bench: Bench, name: str) -> None:
    """The pull goes on by itself and ends with the right bytes; the oracle finds nothing."""
    fault = PASSING[name]
    bench.hub.faults = [Fault(**vars(fault))]
    pulled = bench.pull()

    assert 0 == bench.hub.faults[0].times
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)


def test_many_at_once(bench: Bench) -> None:
    """All kinds of faults in one run, over many files."""
    bench.hub.faults = [Fault(**{**vars(fault), "match": fault.match.replace(FIRST, "model-")})
                        for fault in PASSING.values()]  # fmt: skip
    pulled = bench.pull()

    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_stall_is_ended(bench: Bench) -> None:
    """A connection that says nothing for the time is cut, and the file goes on from there."""
    bench.hub.faults = [Fault(CDN, "stall", 1, at=30_000)]
    began = time.monotonic()
    pulled = bench.pull(stall=1.0)

    assert time.monotonic() - began < 10
    assert "nothing came for 1 s" in bench.told()
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_ranges_that_are_ignored(bench: Bench) -> None:
    """A server that only sends whole files still completes a file that was begun."""
    bench.hub.faults = [Fault(CDN, "cut", 1, at=60_000), Fault(CDN, "whole", 99)]
    pulled = bench.pull()

    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_a_server_asks_to_wait(bench: Bench) -> None:
    """What the server asks for is waited, and not what we would have chosen."""
    bench.hub.faults = [Fault(CDN, "status", 1, status=429, headers={"RateLimit": '"r";r=0;t=1'})]
    began = time.monotonic()
    bench.pull()

    assert time.monotonic() - began >= 2
    assert [2.0] == [event.wait for event in bench.of(Retried)]


@pytest.mark.parametrize("date", [False, True])
def test_a_server_says_when(bench: Bench, *, date: bool) -> None:
    """Retry-After is waited, as seconds or as a date, however short our own wait would be."""
    when = formatdate(time.time() + 2.5, usegmt=True) if date else "1"
    head = {"Retry-After": when}
    bench.hub.faults = [Fault(CDN, "status", 1, status=503, headers=head)]
    bench.pull()
    (wait,) = [event.wait for event in bench.of(Retried)]

    assert 0.9 <= wait <= 2.5


def test_one_is_asked_to_wait_and_all_do(bench: Bench) -> None:
    """A limit that one worker meets is everybody's: nobody asks before its time is over."""
    bench.grown(count=24, size=20_000)
    head = {"RateLimit": '"r";r=0;t=1'}
    bench.hub.faults = [
        Fault(r"00005-of.*\?until", "status", 1, status=429, headers=head),
        Fault(r"\?until", "slow", 99, rate=100_000),
    ]
    bench.pull(workers=4)
    (limited,) = [one.at for one in bench.hub.log if one.status == 429]
    # Why some tenths: who had asked already is answered.
    after = [one.at - limited for one in bench.hub.log if "model-" in one.path and one.sent]

    assert [] == [seconds for seconds in after if 0.4 < seconds < 1.8]
    assert len([seconds for seconds in after if seconds > 1.8]) > 10


def test_another_range_is_noticed(bench: Bench) -> None:
    """An answer for other bytes than were asked for is not read, and said."""
    bench.grown(count=4, size=3_000_000)
    bench.hub.faults = [Fault(CDN, "cut", 1, at=2_500_000), Fault(CDN, "span", 1)]
    pulled = bench.pull()

    assert re.search(r"the server sent 'bytes \d+-\d+/3000\d+' of \d+", bench.told())
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_wrong_every_time(bench: Bench) -> None:
    """A file that comes wrong three times is the end, with the cause and nothing published."""
    bench.hub.faults = [Fault(CDN, "flip", 99, at=50_000)]
    with pytest.raises(WeightsError, match="wrong each time") as caught:
        bench.pull()

    assert "HF_ENDPOINT" in (caught.value.hint or "")
    assert 2 == len(bench.of(Damaged))
    assert not (bench.top / REPO / bench.commit).exists()


def test_down_for_good(bench: Bench) -> None:
    """A hub that stays down is the end after ten tries; what came until then is kept."""
    bench.hub.faults = [Fault(CDN, "status", 999, status=503)]
    with pytest.raises(WeightsError, match="the server answered 503, 10 times in a row"):
        bench.pull()
    bench.hub.faults = []
    bench.hub.log.clear()
    pulled = bench.pull()

    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert 1 == len([e for e in bench.hub.log if FIRST in e.path and e.origin == "cdn"])


def test_nobody_listens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens is told as what it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(WeightsError, match="the hub can't be reached"):
        bench.pull()


def test_a_branch_while_the_hub_is_down(bench: Bench) -> None:
    """A folder that was begun is never taken for a whole one because the hub does not answer."""
    bench.hub.faults = [Fault(CDN, "status", 999, status=503)]
    with pytest.raises(WeightsError):
        bench.pull()
    bench.hub.faults = [Fault(".*", "status", 9999, status=500)]
    with pytest.raises(WeightsError):
        bench.pull()

    assert not (bench.top / REPO / bench.commit).exists()


@pytest.mark.parametrize("scheme", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_lead_to_http_only(bench: Bench, scheme: str) -> None:
    """A redirect to another scheme is refused by its name."""
    bench.hub.faults = [
        Fault(f"GET .*resolve.*{FIRST}", "redirect", 9, status=302, headers={"Location": scheme})
    ]
    with pytest.raises(WeightsError, match="the hub redirects to"):
        bench.pull()


def test_redirects_in_a_circle(bench: Bench) -> None:
    """A circle of redirects ends."""
    bench.hub.faults = [
        Fault(f"GET .*resolve.*{FIRST}", "redirect", 99, status=302, headers={"Location": "?again"})
    ]
    with pytest.raises(WeightsError, match="more than 5 redirects"):
        bench.pull()


def test_slow_is_not_dead(bench: Bench) -> None:
    """A slow line that brings something is left alone."""
    bench.hub.faults = [Fault(CDN, "slow", 1, rate=100_000)]
    bench.pull(stall=1.0)

    assert not bench.of(Retried)


def test_a_limit_on_the_rate(bench: Bench) -> None:
    """--max-rate holds over all workers together."""
    began = time.monotonic()
    bench.pull(rate=400_000.0)

    assert 0.9 < time.monotonic() - began < 4


def test_a_large_file_is_shared_out(bench: Bench, tmp_path: Path) -> None:
    """Several workers fetch parts of one large file, none of its bytes twice."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1_000_000)
    commit = bench.hub.add("org/large", folder)
    pulled = bench.pull(wanted=Wanted("org/large"))
    ranges = [one.range for one in bench.hub.log if one.sent]

    assert 256_000_000 == bench.hub.sent()
    assert len(ranges) > 1
    assert all(ranges)
    assert [] == mismatches(pulled.folder, "org/large", commit, bench.hub.url)


def test_a_large_file_that_is_cut_everywhere(bench: Bench, tmp_path: Path) -> None:
    """Parts of one file, each cut and one of them wrong, come together in the end."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 800_000)
    commit = bench.hub.add("org/large", folder)
    bench.hub.faults = [
        Fault("GET .*until", "cut", 6, at=9_000_001),
        Fault("GET .*until", "flip", 1, at=1),
    ]
    pulled = bench.pull(wanted=Wanted("org/large"))

    assert 1 == len(bench.of(Damaged))
    assert [] == mismatches(pulled.folder, "org/large", commit, bench.hub.url)
    assert ["model.safetensors"] == list(files_of(pulled.folder))


def test_a_low_limit_is_no_stall(bench: Bench) -> None:
    """Waiting for the limit is our doing: no connection is cut for it."""
    bench.pull(rate=200_000.0, stall=1.0, workers=2)

    assert not bench.of(Retried)


def test_the_hub_is_down_and_the_weights_are_here(bench: Bench) -> None:
    """Who asks for the newest is told that a commit is here, and how to take it."""
    bench.pull()
    bench.hub.faults = [Fault(".*", "status", 9999, status=503)]
    with pytest.raises(WeightsError) as caught:
        bench.pull()

    assert f"commit {bench.commit[:12]} is here: --offline" in (caught.value.hint or "")
    assert "the hub answered 503; again" not in bench.told()
    assert bench.of(Retried)[0].path == REPO


def test_a_file_more_is_wanted(bench: Bench, tmp_path: Path) -> None:
    """A commit that is here without the projector gets it, and its manifest tells so."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "Kimi.gguf").write_bytes(b"GGUF" + bytes(70_000))
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF" + bytes(66_000))
    bench.hub.add("org/gguf", folder)
    bench.pull(wanted=Wanted("org/gguf"))
    bench.hub.log.clear()
    wanted = Wanted("org/gguf", beside=("mmproj-F16.gguf",))
    pulled = bench.pull(wanted=wanted)

    assert 66_004 == bench.hub.sent()
    assert {"Kimi.gguf", "mmproj-F16.gguf"} == set(files_of(pulled.folder))
    bench.hub.log.clear()
    bench.pull(wanted=Wanted("org/gguf", pulled.manifest.revision, beside=wanted.beside))
    assert not bench.hub.log
