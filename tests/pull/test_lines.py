"""Lines that are slow, silent or half dead: what lives is left alone, what is dead is left soon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from email.utils import formatdate
from pathlib import Path

import pytest

from kimideploy.errors import WeightsError
from kimideploy.weights import hub as hub_module
from kimideploy.weights.events import Published, Retried
from kimideploy.weights.part import BLOCK, Part
from kimideploy.weights.store import Staging
from tests.hub.repos import safetensors, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, begin, leftovers, mismatches

CDN = r"GET .*\?until"
NAME = "model.safetensors"


def one_file(bench: Bench, size: int, *, xet: str | None = None) -> None:
    """Let the repository be one file of *size* bytes."""
    folder = bench.folder.with_name(f"one-{size}")
    folder.mkdir(exist_ok=True)
    safetensors(folder / NAME, "w", (bytes(range(251)) * (size // 251 + 1))[:size])
    bench.commit = bench.hub.add(REPO, folder, xet={NAME: xet} if xet is not None else None)


def whole(bench: Bench, folder: Path) -> bool:
    """Return whether the hub's own client finds nothing wrong, and nothing is left over."""
    bench.hub.faults = []
    return not mismatches(folder, REPO, bench.commit, bench.hub.url) and not leftovers(bench.top)


def test_a_trickle_is_not_dead(bench: Bench) -> None:
    """A line of some kilobytes a second is slower than any buffer fills, and lives."""
    one_file(bench, 120_000)
    bench.hub.faults = [Fault(CDN, "slow", 1, rate=25_000)]
    pulled = bench.pull(stall=1.0)

    assert not bench.of(Retried)
    assert whole(bench, pulled.folder)


def test_bytes_that_are_skipped_count(bench: Bench) -> None:
    """Who ignores the range sends the file from its start: to wade through that is no stall."""
    one_file(bench, 12_000_000)
    bench.hub.faults = [Fault(CDN, "cut", 1, at=10_500_000), Fault(CDN, "status", 99, status=503)]
    with pytest.raises(WeightsError, match="503"):
        bench.pull()
    bench.hub.faults = [Fault(CDN, "whole", 1, rate=4e6)]
    pulled = bench.pull(stall=1.0)

    assert not bench.of(Retried)
    assert whole(bench, pulled.folder)


def test_a_range_ignored_after_a_gigabyte(bench: Bench) -> None:
    """A file that is nearly here is gone on with however much has to be skipped for it."""
    size = 1_300_000_000
    path = bench.folder.with_name("sparse") / NAME
    path.parent.mkdir()
    safetensors(path, "w", b"")
    head = path.read_bytes().replace(b'"shape": [0]', b'"shape": [%d]' % size)
    head = head.replace(b"[0, 0]", b"[0, %d]" % size)
    path.write_bytes((len(head) - 8).to_bytes(8, "little") + head[8:])
    os.truncate(path, len(head) + size)
    bench.commit = bench.hub.add(REPO, path.parent)
    entry = bench.hub.repos[REPO][bench.commit][NAME]
    staging = Staging(bench.top / REPO / bench.commit)
    place, blocks = staging.place(NAME), entry.size // BLOCK - 1
    place.parent.mkdir(parents=True)
    with path.open("rb") as origin:
        first = origin.read(BLOCK)
    with staging.part(NAME).open("wb") as part:
        part.write(first)
        part.truncate(blocks * BLOCK)
    empty = zlib.crc32(bytes(BLOCK))
    lines = [f"{n} {zlib.crc32(first) if not n else empty:08x}\n" for n in range(blocks)]
    ledger = f"sha256 {entry.sha256} {entry.size} {BLOCK}\n" + "".join(lines)
    place.with_name(f"{place.name}.ledger").write_text(ledger)
    bench.hub.faults = [Fault(CDN, "whole", 9)]
    pulled = bench.pull(workers=1)

    assert bench.of(Published)[0].kept >= blocks * BLOCK
    assert pulled.folder.is_dir()


def test_half_of_a_slow_span_is_taken_over(bench: Bench) -> None:
    """One throttled connection does not hold up the others: they share out what it has left."""
    one_file(bench, 200_000_000)
    bench.hub.faults = [Fault(CDN, "slow", 1, rate=4e6)]
    began = time.monotonic()
    pulled = bench.pull()

    # Why 15: alone it would have gone on for 16 s at the least, with 64 MiB or more.
    assert time.monotonic() - began < 12
    assert whole(bench, pulled.folder)


@pytest.mark.parametrize("after", ["0", formatdate(time.time() - 120, usegmt=True)])
def test_a_server_that_asks_for_no_wait(bench: Bench, after: str) -> None:
    """Asked to come back at once, or before now, it is still waited as long as without a word."""
    head = {"Retry-After": after}
    bench.hub.faults = [Fault(CDN, "status", 4, status=503, headers=head)]
    bench.pull(backoff=0.2, workers=1)
    waits = [event.wait for event in bench.of(Retried)]

    assert 4 == len(waits)
    assert min(waits) >= 0.1
    assert waits[-1] > 0.5


def test_an_address_that_died(bench: Bench) -> None:
    """A second origin that dies in the middle is forgotten: the hub is asked where else it lies."""
    one_file(bench, 20_000_000)
    data = (bench.hub.repos[REPO][bench.commit][NAME].path or Path()).read_bytes()
    server = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        connection, _ = server.accept()
        server.close()
        connection.recv(1 << 16)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[:9_000_000])
        connection.close()

    thread = threading.Thread(target=once, daemon=True)
    thread.start()
    where = {"Location": f"http://127.0.0.1:{server.getsockname()[1]}/x"}
    bench.hub.faults = [Fault("GET .*resolve", "redirect", 1, status=302, headers=where)]
    pulled = bench.pull(workers=1)
    thread.join()

    assert 1 == len(bench.of(Retried))
    assert bench.hub.sent() < 13_000_000
    assert whole(bench, pulled.folder)


def test_an_address_of_the_hubs_own_ran_out(bench: Bench) -> None:
    """A signed address that has run out is asked for anew, also where it is the hub's own."""
    bench.hub.cdn = f"{bench.hub.url}/signed"
    bench.hub.faults = [Fault(rf"GET /signed/.*{shards(4)[0]}", "status", 1, status=403)]
    pulled = bench.pull()

    assert "the address that the hub named was refused (403)" in bench.told()
    assert whole(bench, pulled.folder)


def test_an_answer_that_ends_its_connection(bench: Bench) -> None:
    """A stall is seen on a connection, too, that the server is not going to keep."""
    fault = Fault(rf"GET .*{shards(4)[0]}\?until", "stall", 1, at=30_000, close=True)
    bench.hub.faults = [fault]
    began = time.monotonic()
    pulled = bench.pull(stall=1.0)

    assert time.monotonic() - began < 4
    assert "nothing came for 1 s" in bench.told()
    assert whole(bench, pulled.folder)


def test_an_address_with_odd_letters(bench: Bench) -> None:
    """Letters that an address may not hold are written as it wants them, and not a bug."""
    head = {"Location": "/caf\u00e9 x/y?z"}
    bench.hub.faults = [Fault("GET .*resolve.*00001-of", "redirect", 1, status=302, headers=head)]
    pulled = bench.pull()

    assert any("/caf%E9%20x/y?z" in one.path for one in bench.hub.log)
    assert whole(bench, pulled.folder)


def test_a_hub_that_never_answers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question about names is given up as well: the hub's client would wait for ever."""
    monkeypatch.setattr(hub_module, "_TIMEOUT", 0.5)
    bench.hub.faults = [Fault("GET /api/models/.*/tree", "mute", 1)]
    began = time.monotonic()
    pulled = bench.pull()

    assert time.monotonic() - began < 5
    assert [(REPO, "the hub did not answer")] == [(e.path, e.why) for e in bench.of(Retried)]
    assert whole(bench, pulled.folder)


def test_nobody_waits_for_a_mute_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the run is told at once, though another worker waits for its answer's head."""
    bench.grown(count=4, size=3_000_000)
    bench.hub.faults = [Fault("GET .*00002-of.*until", "mute", 9)]
    write = Part._write

    def full(self: Part, data: memoryview, offset: int) -> None:
        if "00003-of" in self.item.path:
            raise WeightsError("the disk is full")
        write(self, data, offset)

    monkeypatch.setattr(Part, "_write", full)
    began = time.monotonic()
    with pytest.raises(WeightsError, match="the disk is full"):
        bench.pull(stall=20.0)

    assert time.monotonic() - began < 5


def test_killed_between_a_name_and_the_record(bench: Bench) -> None:
    """A file that was given its name and not written down is read again, not fetched again."""
    one_file(bench, 30_000_000)
    script = (
        "import os, signal\n"
        "from kimideploy.weights.part import Part\n"
        "publish = Part.publish\n"
        "def killed(self, path):\n"
        "    publish(self, path)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Part.publish = killed\n"
        "from kimideploy.cli.app import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", script, "pull", REPO, "--to", str(bench.top)]
    ended = subprocess.run(words, capture_output=True, check=False)
    assert -signal.SIGKILL == ended.returncode
    bench.hub.log.clear()
    pulled = bench.pull()

    assert 0 == bench.hub.sent()
    assert whole(bench, pulled.folder)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_mirror_without_a_xet_store(bench: Bench, status: int) -> None:
    """A mirror that lists names of the store and leads to none still brings the files."""
    one_file(bench, 9_000_000, xet="ab" * 32)
    bench.hub.faults = [Fault("xet-read-token", "status", 99, status=status)]
    pulled = bench.pull()

    assert whole(bench, pulled.folder)


def test_a_store_that_accepts_and_says_nothing(bench: Bench) -> None:
    """A xet store that is silent is left after the time of a stall, and HTTP brings the file."""
    one_file(bench, 9_000_000, xet="ab" * 32)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        bench.hub.cas = f"http://127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        pulled = bench.pull(stall=1.0, workers=1)

    assert time.monotonic() - began < 10
    assert "nothing came for 1 s" in bench.told()
    assert whole(bench, pulled.folder)


def test_a_token_that_never_comes(bench: Bench) -> None:
    """Ctrl-C does not wait for the answer about a token of the xet store."""
    one_file(bench, 9_000_000, xet="ab" * 32)
    bench.hub.faults = [Fault("xet-read-token", "mute", 99)]
    with begin(bench) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1.0)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)

    assert 130 == process.returncode
    assert time.monotonic() - began < 6
