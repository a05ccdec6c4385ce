"""olah, a mirror that people put in front of the hub, between the pull and the hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.judges.judge import locked, pip_install
from tests.judges.judge import run as step
from tests.pull.conftest import REPO, Bench, leftovers, mismatches

VERSION = "0.5.4"


@pytest.fixture(scope="module")
def olah() -> Path:
    """Return olah's program, installed in a folder of the cache."""
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path("~/.cache/kimideploy").expanduser() / f"olah-{VERSION}-{python}"
    program, done = folder / "bin" / "olah-cli", folder / "installed"
    with locked(folder.with_suffix(".lock")):
        if not done.exists():
            step([sys.executable, "-m", "venv", "--clear", folder], print)
            pip_install(folder / "bin" / "python", [f"olah=={VERSION}"], print)
            done.touch()
    return program


@pytest.fixture
def mirror(bench: Bench, olah: Path, tmp_path: Path) -> Iterator[str]:
    """Start olah in front of the hub, and yield its address."""
    bench.hub.redirects = False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hub, own = bench.hub.url.removeprefix("http://"), f"127.0.0.1:{port}"
    words = ["--host", "127.0.0.1", "--port", str(port), "--hf-scheme", "http"]
    words += ["--hf-netloc", hub, "--hf-lfs-netloc", hub]
    words += ["--mirror-netloc", own, "--mirror-lfs-netloc", own]
    words += ["--repos-path", str(tmp_path / "repos"), "--log-path", str(tmp_path / "log")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with (tmp_path / "olah.out").open("w") as out:
        process = subprocess.Popen([olah, *words], env=env, stdout=out, stderr=out, cwd=tmp_path)
    try:
        _listening(process, f"http://{own}/", tmp_path / "olah.out")
        yield f"http://{own}"
    finally:
        process.terminate()
        process.wait(20)


def _listening(process: subprocess.Popen[bytes], url: str, said: Path) -> None:
    """Wait until the mirror answers anything."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(said.read_text())


def test_through_a_mirror(bench: Bench, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT names the mirror, and the result is the hub's, byte for byte."""
    bench.grown(count=3, size=3_000_000)
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    pulled = bench.pull()

    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
    assert [] == leftovers(bench.top)
    assert bench.hub.sent("safetensors") >= 9_000_000


def test_a_mirror_that_has_it(bench: Bench, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second machine behind a mirror costs the hub no shard, and is proved all the same."""
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    bench.pull()
    bench.hub.log.clear()
    pulled = bench.pull(top=bench.top.with_name("second"))

    assert 0 == bench.hub.sent("safetensors$")
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)
