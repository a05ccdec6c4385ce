"""How fast weights come and are proved, beside the hub's own tool, in one run.

    python -m bench.weights [--count 16] [--size 128MiB] [--where DIR] [--runs 3]

One hub on this machine serves both, HTTP only, eight workers each. The best of some runs in turn is
taken. Goals: pull ≤ 1.05 of `hf download` alone and ≤ 0.7 of it with `hf cache verify`, verify
≥ 0.95 of `openssl dgst` on all cores, memory ≤ 200 MB, and the same for a file eight times as
large. The exit code is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kimideploy.facts.probe.folder import filesystem
from kimideploy.quantities import parse_bytes
from kimideploy.weights.events import Verified
from kimideploy.weights.manifest import read_manifest
from kimideploy.weights.verify import verify as look
from tests.hub.repos import shards

REPO = "bench/kimi"
BIN = Path(sys.executable).parent
WORKERS = 8
#: goals that were missed
MISSED: list[str] = []


@dataclass
class Run:
    """What a command took: seconds, and bytes of memory at its peak."""

    seconds: float
    memory: int


def run(words: Sequence[str], env: dict[str, str]) -> Run:
    """Run *words* to their end, which must be a good one."""
    began = time.perf_counter()
    process = subprocess.Popen(
        list(words), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}: {said.decode()[-2000:]}")
    return Run(time.perf_counter() - began, used.ru_maxrss * 1024)


def origin(folder: Path, count: int, size: int) -> int:
    """Write *count* safetensors of *size* random bytes each; returns all bytes."""
    folder.mkdir()
    for number, name in enumerate(shards(count)):
        with (folder / name).open("wb") as file:
            tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
            head = json.dumps({f"layers.{number}": tensor}).encode()
            head += b" " * (-len(head) % 8)
            file.write(len(head).to_bytes(8, "little") + head)
            for at in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - at)))
    (folder / "config.json").write_text("{}")
    return sum(path.stat().st_size for path in folder.iterdir())


def best(tries: int, *ways: Callable[[], Run]) -> list[Run]:
    """Return the fastest of *tries* runs of each of *ways*, taken in turn."""
    found: list[list[Run]] = [[] for _ in ways]
    for _ in range(tries):
        for way, runs in zip(ways, found, strict=True):
            runs.append(way())
    return [min(runs, key=lambda run: run.seconds) for runs in found]


@contextmanager
def hub(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve *place* / origin; yield its commit, and the environment that leads to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub", REPO, place / "origin"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url, commit = process.stdout.readline().split()
        yield (
            commit,
            {
                **os.environ,
                "HF_ENDPOINT": url,
                "HF_HOME": str(place / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            },
        )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def pull(place: Path, commit: str, env: dict[str, str]) -> Run:
    """Pull anew."""
    shutil.rmtree(place / "ours", ignore_errors=True)
    words = [str(BIN / "kimideploy"), "pull", REPO, "--revision", commit, "--no-xet"]
    return run([*words, "--to", str(place / "ours"), "--max-workers", str(WORKERS)], env)


def verify(place: Path) -> Run:
    """Read and prove what was pulled."""
    words = [str(BIN / "kimideploy"), "weights", "verify", "--full", "--to", str(place / "ours")]
    return run(words, dict(os.environ))


def against_hf(place: Path, count: int, size: int, tries: int) -> Run:
    """Print what a pull takes beside `hf download`, and beside that with `hf cache verify`."""
    total = origin(place / "origin", count, size)
    with hub(place) as (commit, env):

        def theirs() -> Run:
            shutil.rmtree(place / "theirs", ignore_errors=True)
            words = [str(BIN / "hf"), "download", REPO, "--revision", commit]
            return run(
                [*words, "--local-dir", str(place / "theirs"), "--max-workers", str(WORKERS)], env
            )

        def proved() -> Run:
            words = [str(BIN / "hf"), "cache", "verify", REPO, "--revision", commit]
            return run([*words, "--local-dir", str(place / "theirs")], env)

        download, check, ours = best(tries, theirs, proved, lambda: pull(place, commit, env))
    both = download.seconds + check.seconds
    print(f"{count} files of {size / 1e6:.0f} MB, {total / 1e9:.2f} GB, on {_filesystem(place)}")
    for name, found in (("hf download", download), ("hf cache verify", check), ("pull", ours)):
        rate = total / found.seconds / 1e9
        print(f"  {name:<18}{found.seconds:6.2f} s  {rate:5.2f} GB/s  {found.memory / 1e6:4.0f} MB")
    _goal("pull / hf download", ours.seconds / download.seconds, most=1.05)
    _goal("pull / (hf download + hf cache verify)", ours.seconds / both, most=0.7)
    _goal("memory of pull, MB", ours.memory / 1e6, most=200)
    shutil.rmtree(place / "theirs", ignore_errors=True)
    return ours


def against_openssl(place: Path, tries: int) -> Run:
    """Print the rate of verifying beside openssl on all cores; both read the same files."""
    (folder,) = (place / "ours" / REPO).glob("[0-9a-f]*")
    files = sorted(folder.glob("*.safetensors"))
    total = sum(path.stat().st_size for path in files)
    env = dict(os.environ)

    def openssl() -> Run:
        began = time.perf_counter()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(lambda path: run(["openssl", "dgst", "-sha256", str(path)], env), files))
        return Run(time.perf_counter() - began, 0)

    def hashed() -> Run:
        manifest = read_manifest(folder)
        assert manifest is not None
        began = time.perf_counter()
        last = list(look(folder, manifest, full=True))[-1]
        assert isinstance(last, Verified)
        assert last.ok
        return Run(time.perf_counter() - began, 0)

    theirs, ours = best(tries, openssl, hashed)
    print(f"sha256 of {total / 1e9:.2f} GB on {os.cpu_count()} cores")
    for name, found in (("openssl dgst", theirs), ("verify --full", ours)):
        print(f"  {name:<18}{found.seconds:6.2f} s  {total / found.seconds / 1e9:5.2f} GB/s")
    _goal("verify / openssl, rates", theirs.seconds / ours.seconds, least=0.95)
    return verify(place)


def flat(place: Path, size: int, small: Run, hashed: Run) -> None:
    """Print what one file of *size* bytes takes of memory, beside what smaller ones took."""
    shutil.rmtree(place / "origin")
    origin(place / "origin", 1, size)
    with hub(place) as (commit, env):
        large = pull(place, commit, env)
    again = verify(place)
    print(f"1 file of {size / 1e6:.0f} MB")
    print(f"  pull {large.memory / 1e6:.0f} MB, verify --full {again.memory / 1e6:.0f} MB")
    _goal("memory of pull, to that of smaller files", large.memory / small.memory, most=1.2)
    _goal("memory of verify, to that of smaller files", again.memory / hashed.memory, most=1.2)
    _goal("memory of verify, MB", again.memory / 1e6, most=200)


def _goal(
    name: str, value: float, *, most: float | None = None, least: float | None = None
) -> None:
    good = value <= most if most is not None else least is not None and value >= least
    goal = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
    print(f"  {name}: {value:.2f} (goal {goal}: {'met' if good else 'MISSED'})")
    if not good:
        MISSED.append(name)


def _filesystem(place: Path) -> str:
    return filesystem(str(place)) or "an unknown file system"


def main() -> None:
    """Print the ratios for files of one size, and memory for one eight times as large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--size", type=parse_bytes, default=128 << 20)
    parser.add_argument("--where", type=Path, default=None, help="a folder of a disk to use")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.where) as name:
        place = Path(name)
        small = against_hf(place, asked.count, asked.size, asked.runs)
        hashed = against_openssl(place, asked.runs)
        flat(place, 8 * asked.size, small, hashed)
    sys.exit(1 if MISSED else 0)


if __name__ == "__main__":
    main()
