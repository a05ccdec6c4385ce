"""The real engines, on a machine without a GPU, as judges of what we render and stand in for."""

from __future__ import annotations

from tests.judges.judge import BuildError, Judge, JudgeError, Parsed
from tests.judges.llamacpp import LlamaCpp
from tests.judges.python_engines import Ktransformers, Sglang, Vllm

VLLM = Vllm()
LLAMACPP = LlamaCpp()
JUDGES: dict[str, Judge] = {
    "vllm": VLLM,
    "sglang": Sglang(VLLM),
    "ktransformers": Ktransformers(VLLM),
    "llamacpp": LLAMACPP,
}

# The two that also serve, with the programs in their `bin_dir`.
SERVERS: dict[str, Vllm | LlamaCpp] = {"vllm": VLLM, "llamacpp": LLAMACPP}

__all__ = ["JUDGES", "LLAMACPP", "SERVERS", "VLLM", "BuildError", "Judge", "JudgeError", "Parsed"]
