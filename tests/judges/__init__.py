"""The real engines, on a machine without a GPU, as judges of what we render and stand in for.

python -m tests.judges build [NAME…]
python -m tests.judges parse NAME -- ARGV…
python -m tests.judges path vllm
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.judges import build

Log = Callable[[str], None]
#: words of the command before the engine's own arguments
_COMMANDS = {"vllm": 2, "sglang": 2, "ktransformers": 3, "llamacpp": 1}
#: llama-server has parsed every word when it gets this far
_LOADING = "failed to load model"


@dataclass(frozen=True)
class Parsed:
    """What an engine says to an argv; `values` are the parsed options (none for llama.cpp)."""

    ok: bool
    error: str | None
    values: dict[str, Any]


@dataclass
class Judge:
    """One engine. Its parser is imported once, in a worker that lives as long as we do."""

    name: str
    _build: Callable[[Log], Path]
    _version: tuple[str, str]
    _worker: subprocess.Popen[str] | None = field(default=None, repr=False)

    def build(self, log: Log = print) -> Path:
        """Return the judge's folder; it is complete afterwards. Raises RuntimeError."""
        return self._build(log)

    def ready(self) -> bool:
        """Whether the judge is built already."""
        return build.complete(build.folder(*self._version))

    def parse(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Parsed:
        """Return what the engine's own parser says to the whole command *argv*."""
        words = list(argv[self._skip(argv) :])
        if self.name == "llamacpp":
            return self._llama(words, env or {})
        return Parsed(**self._ask(words))

    def flags(self) -> list[str]:
        """Return every flag the engine knows: spellings, a space, and how many values."""
        if self.name == "llamacpp":
            return _help_flags(self._help())
        found: list[str] = self._ask("flags")["values"]["flags"]
        return found

    def _skip(self, argv: Sequence[str]) -> int:
        launched = list(argv[1:3]) == ["-m", "sglang.launch_server"]
        return 3 if launched else _COMMANDS[self.name]

    def _ask(self, asked: Any) -> dict[str, Any]:
        if self._worker is None:
            self._worker = self._start()
        if self._worker.stdin is None or self._worker.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._worker.stdin.write(json.dumps(asked) + "\n")
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.name} parser died; see {self.build()}/worker.log")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        place = self.build()
        python = build.vllm(print) / "bin" / "python"
        env = os.environ | {"PYTHONWARNINGS": "ignore", "VLLM_LOGGING_LEVEL": "ERROR"}
        if self.name != "vllm":
            env["PYTHONPATH"] = str(place / "packages")
        worker = Path(__file__).with_name("worker.py")
        with (place / "worker.log").open("w") as log:
            started = subprocess.Popen(
                [python, worker, self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
                cwd=place,
            )
        atexit.register(_end, started)
        return started

    def _llama(self, words: list[str], env: Mapping[str, str]) -> Parsed:
        """Run it: the model is not there, so it ends right after it has read every word."""
        done = subprocess.run(
            [self.build() / "llama-server", *words],
            env=os.environ | dict(env),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        if _LOADING in said:
            return Parsed(ok=True, error=None, values={})
        return Parsed(ok=False, error=said.strip()[-600:], values={})

    def _help(self) -> str:
        done = subprocess.run(
            [self.build() / "llama-server", "--help"], capture_output=True, text=True, check=True
        )
        return done.stdout


def _end(worker: subprocess.Popen[str]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
    worker.terminate()
    worker.wait()


def _help_flags(text: str) -> list[str]:
    """Read llama-server's help: spellings, and whether a value follows them."""
    import re

    spelled = re.compile(r"(-[-\w]+(?:,\s+-[-\w]+)*)( \S.*?)?(?:\s{2,}|$)")
    found = set()
    for line in text.splitlines():
        match = spelled.match(line)
        if match is not None and not line.startswith("-----"):
            names = re.split(r",\s+", match[1])
            found.add(f"{','.join(names)} {'1' if match[2] else '0'}")
    return sorted(found)


JUDGES: dict[str, Judge] = {
    "vllm": Judge("vllm", build.vllm, ("vllm", build.VLLM)),
    "sglang": Judge("sglang", build.sglang, ("sglang", build.SGLANG)),
    "ktransformers": Judge("ktransformers", build.kt, ("sglang-kt", build.KT)),
    "llamacpp": Judge("llamacpp", build.llamacpp, ("llama-server", build.LLAMA)),
}
