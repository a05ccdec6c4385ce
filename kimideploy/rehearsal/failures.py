"""How the engines die: their own last words and exit codes.

vLLM's are its 0.32.0's (a refused port and an unknown architecture were tried on the real one's
CPU build, the rest needs a GPU and is read off its source); SGLang's and llama-server's are read
off their sources (0.5.23, b11434).
"""

from __future__ import annotations

from dataclasses import dataclass

from kimideploy.rehearsal.argv import Refused
from kimideploy.rehearsal.types import Mind

#: ways to fail that end the load, and those that don't end it
ENDINGS = ("oom", "no-kv", "version", "port", "nccl", "exit0")
WAYS = (*ENDINGS, "hang", "wrong-model")
_KILLED = -9
_CUDA = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total"
    " capacity of 139.80 GiB of which 512.00 MiB is free."
)
_NCCL = (
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp, unhandled system"
    " error (run with NCCL_DEBUG=INFO for details)\nncclSystemError: System call (e.g. socket,"
    " malloc) or external library call failed or device error."
)


@dataclass(frozen=True, slots=True)
class Death:
    """The last lines of the log, and the exit code; a negative one is a signal."""

    text: str
    code: int


def death(way: str, mind: Mind, host: str, port: int) -> Death:
    """Return how the engine of *mind* dies in this *way*, one of `ENDINGS`.

    Raises Refused for a way the engine does not know.
    """
    match mind.family:
        case "vllm":
            return _vllm(way)
        case "sglang":
            return _sglang(way, host, port)
        case "llamacpp" if way == "nccl":
            raise Refused("--fail nccl: llama-server does not use NCCL", 2)
        case "llamacpp":
            return _llamacpp(way, mind, host, port)


def _vllm(way: str) -> Death:
    worker, core = "(Worker_TP0 pid=103)", "(EngineCore pid=102)"
    if way == "exit0":
        return Death(f"{core} ERROR [core.py:1510] EngineCore encountered a fatal error.", 0)
    if way == "port":
        return Death(f"{_traceback()}\nOSError: [Errno 98] Address already in use", 1)
    if way == "version":
        words = "Model architectures ['KimiK25ForConditionalGeneration'] are not supported for now."
        return Death(f"{_traceback()}\nValueError: {words} Supported architectures: …", 1)
    cause = {
        "oom": f"{worker} ERROR {_CUDA}",
        "nccl": f"{worker} ERROR {_NCCL}",
        "no-kv": f"{core} ValueError: No available memory for the cache blocks. Try increasing"
        " `gpu_memory_utilization` when initializing the engine",
    }[way]
    return Death(
        f"{cause}\n{core} ERROR [core.py:1510] EngineCore failed to start.\n{_traceback()}\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core"
        " proc(s): {'EngineCore': 1}",
        1,
    )


def _sglang(way: str, host: str, port: int) -> Death:
    if way == "exit0":
        return Death("[TP0] Scheduler or DataParallelController exited.", 0)
    if way == "port":
        bind = f"error while attempting to bind on address ('{host}', {port})"
        return Death(f"ERROR:    [Errno 98] {bind}: [errno 98] address already in use", 1)
    if way == "version":
        choice = "argument --reasoning-parser: invalid choice: 'kimi_k2' (choose from …)"
        return Death(f"launch_server.py: error: {choice}", 2)
    cause = {
        "oom": _CUDA,
        "nccl": _NCCL,
        "no-kv": "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."
        " Current value: mem_fraction_static=0.8",
    }[way]
    return Death(
        f"[TP0] Scheduler hit an exception: {_traceback()}\n{cause}\n"
        "Received sigquit from a child process. It usually means the child failed.",
        _KILLED,
    )


def _llamacpp(way: str, mind: Mind, host: str, port: int) -> Death:
    if way == "exit0":
        return Death("srv    operator(): operator(): cleaning up before exit...", 0)
    if way == "port":
        bind = f"couldn't bind HTTP server socket, hostname: {host}, port: {port}"
        return Death(f"srv  start: {bind}\nsrv  llama_server: exiting due to HTTP server error", 1)
    cause = {
        "oom": "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0:"
        " cudaMalloc failed: out of memory\n"
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "no-kv": "llama_init_from_model: failed to initialize the context:"
        " failed to allocate buffer for kv cache",
        "version": "llama_model_load: error loading model: error loading model architecture:"
        " unknown model architecture: 'deepseek2'",
    }[way]
    return Death(
        f"{cause}\nsrv    load_model: failed to load model, '{mind.root}'\n"
        "srv  llama_server: exiting due to model loading error",
        1,
    )


def _traceback() -> str:
    return "Traceback (most recent call last):"
