"""What a judge is: a real engine's own parser, built once into a cache, asked many times."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Log = Callable[[str], None]

CACHE_VARIABLE = "KIMIDEPLOY_JUDGES"
MARKER = ".complete"
NICE = ("nice", "-n", "10")
NO_ENVIRONMENT: Mapping[str, str] = {}
ROOT = Path(__file__).resolve().parents[2]


class BuildError(RuntimeError):
    """A judge could not be built on this machine."""


class JudgeError(RuntimeError):
    """A judge broke while it was asked: this says nothing about the argv."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """An engine's verdict on one argv.

    `error` is the engine's own message, `values` the namespace it parsed (empty where the engine
    doesn't show it), `warnings` what it said about words it accepted.
    """

    ok: bool
    error: str | None = None
    values: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def cache_root() -> Path:
    """Return the folder of all judges: the variable's, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "kimideploy" / "judges"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; only one process is inside at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    argv: Sequence[str | Path],
    log: Log,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] = NO_ENVIRONMENT,
) -> None:
    """Run one step of a build, politely; raise with the end of its output when it fails."""
    words = [str(word) for word in argv]
    log("$ " + " ".join(words))
    done = subprocess.run(
        [*NICE, *words],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def pip_install(python: Path, words: Sequence[str | Path], log: Log) -> None:
    """Install with that Python's pip; modules are compiled when they are first imported."""
    run([python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", *words], log)


class Judge(ABC):
    """A real engine, without a GPU, that says whether it accepts an argv."""

    name: str
    version: str
    needs: tuple[Judge, ...] = ()

    @property
    def folder(self) -> Path:
        """Where this judge lives: one folder per version and Python."""
        python = f"py{sys.version_info.major}.{sys.version_info.minor}"
        return cache_root() / f"{self.name}-{self.version}-{python}"

    def ready(self) -> bool:
        """Return whether a build of exactly this recipe was finished."""
        marker = self.folder / MARKER
        try:
            return marker.read_text("utf-8") == self._recipe()
        except FileNotFoundError:
            return False

    def build(self, log: Log = print) -> None:
        """Build what is missing, this judge's needs first; `ready()` is true afterwards."""
        for need in self.needs:
            need.build(log)
        if self.ready():
            return
        with locked(self.folder.with_name(f"{self.folder.name}.lock")):
            if self.ready():
                return
            log(f"building the {self.name} judge in {self.folder}")
            started = time.monotonic()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self.make(self.folder, log)
            (self.folder / MARKER).write_text(self._recipe(), "utf-8")
            log(f"built the {self.name} judge in {time.monotonic() - started:.0f} s")

    def _recipe(self) -> str:
        """Return a digest that changes when the way of building does."""
        parts = (self.name, self.version, *self.recipe(), *(need._recipe() for need in self.needs))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest() + "\n"

    @abstractmethod
    def recipe(self) -> tuple[str, ...]:
        """Return all that the outcome of `make` depends on."""

    @abstractmethod
    def make(self, folder: Path, log: Log) -> None:
        """Fill the empty `folder`."""

    @abstractmethod
    def parse(self, argv: Sequence[str], env: Mapping[str, str] = NO_ENVIRONMENT) -> Parsed:
        """Return the engine's verdict on the whole command, first word included."""


class WorkerJudge(Judge):
    """A judge whose parser lives in Python: one process imports it once and answers lines."""

    worker: str
    answer_budget_s = 300.0  # the first answer waits for the import, on a busy machine

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._left = b""
        atexit.register(self.close)

    @abstractmethod
    def python(self) -> Path:
        """Return the interpreter that has the engine."""

    def paths(self) -> tuple[Path, ...]:
        """Return folders of modules, before the interpreter's own."""
        return ()

    @abstractmethod
    def words(self, argv: Sequence[str]) -> list[str] | str:
        """Return what the parser gets of `argv`, or why this is not the engine's command."""

    def parse(self, argv: Sequence[str], env: Mapping[str, str] = NO_ENVIRONMENT) -> Parsed:
        """Ask the worker; a worker that broke is an error of the judge, not of the argv."""
        words = self.words(argv)
        if isinstance(words, str):
            return Parsed(ok=False, error=words)
        answer = self._ask({"argv": words, "env": dict(env)})
        return Parsed(
            ok=bool(answer["ok"]),
            error=answer["error"],
            values=answer["values"],
            warnings=tuple(answer["warnings"]),
        )

    def close(self) -> None:
        """End the worker; the next question starts another."""
        process, self._process, self._left = self._process, None, b""
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        if not self.ready():
            raise JudgeError(
                f"the {self.name} judge is not built: run python -m tests.judges build {self.name}"
            )
        paths = [str(ROOT), *map(str, self.paths())]
        return subprocess.Popen(
            [str(self.python()), "-m", self.worker],
            env={**worker_environment(), "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def _ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(self._process)
        except BrokenPipeError:
            line = b""
        if not line:
            self._said.seek(0)
            said = self._said.read().decode("utf-8", "replace")
            self.close()
            raise JudgeError(f"the {self.name} judge broke:\n{said[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the next whole line, or nothing when the worker ended or is late."""
        assert process.stdout is not None
        deadline = time.monotonic() + self.answer_budget_s
        while b"\n" not in self._left:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([process.stdout], [], [], wait)[0]:
                return b""
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                return b""
            self._left += piece
        line, _, self._left = self._left.partition(b"\n")
        return line


def worker_environment() -> dict[str, str]:
    """Return this environment without words that would change how an engine reads its own."""
    ours = re.compile(r"(VLLM_|SGLANG_|SGL_|KT_|LLAMA_ARG_|PYTHON|HF_|TRANSFORMERS_)")
    kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
    return {
        **kept,
        "COLUMNS": "500",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # parsing asks no hub; if it does, it fails at once
        "VLLM_LOGGING_LEVEL": "WARNING",
        "PYTHONUNBUFFERED": "1",
    }
