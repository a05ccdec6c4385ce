"""What the engines print while they load, and how they die.

vLLM's lines are those of a real 0.32.0 (CPU build) and, for weights, cache and graphs, of public
GPU logs; SGLang's and llama.cpp's are from public logs and sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kimideploy.rehearsal.argv import Words


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log and the share of the load it takes."""

    text: str
    share: float = 0.0
    #: printed over the line before, as progress bars are
    bar: bool = False


def loading(words: Words, shards: int) -> Iterator[Line]:
    """Yield the log of a good load; the shares add up to about one."""
    if words.engine == "vllm":
        yield from _vllm(words, shards)
    elif words.engine == "llamacpp":
        yield from _llamacpp(words)
    else:
        yield from _sglang(words, shards)


def _bars(title: str, count: int, share: float) -> Iterator[Line]:
    for done in range(count + 1):
        percent = 100 * done // count
        text = f"{title}: {percent:3d}% Completed | {done}/{count} [00:00<00:00, 9.99it/s]"
        yield Line(text, share / count if done else 0.0, bar=True)


def _vllm(words: Words, shards: int) -> Iterator[Line]:
    api, core, worker = "(APIServer pid=101)", "(EngineCore pid=102)", "(Worker pid=103)"
    context = words.number("--max-model-len", default=262_144)
    yield Line(f"{api} INFO [api_utils.py:347] version 0.32.0  model {words.model}")
    yield Line(f"{api} INFO [model.py:733] Resolved architecture: KimiK25ForConditionalGeneration")
    yield Line(f"{api} INFO [model.py:2152] Using max model len {context}", 0.05)
    yield Line(f"{core} INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0)", 0.05)
    yield Line(f"{worker} INFO [gpu_model_runner.py:68] Starting to load model {words.model}...")
    yield from _bars("Loading safetensors checkpoint shards", shards, 0.55)
    yield Line(f"{worker} INFO [gpu_model_runner.py:91] Model loading took 72.02 GiB and 1 seconds")
    yield Line(f"{worker} INFO [backends.py:1] Dynamo bytecode transform time: 0.10 s", 0.1)
    yield Line(f"{worker} INFO [gpu_worker.py:349] Available KV cache memory: 46.80 GiB", 0.05)
    yield Line(f"{core} INFO [kv_cache_utils.py:2327] GPU KV cache size: 715,072 tokens")
    for done in range(0, 36, 5):
        percent = 100 * done // 35
        bar = f"Capturing CUDA graphs (decode, FULL): {percent:3d}%| {done}/35 [00:00<00:00]"
        yield Line(bar, 0.02, bar=True)
    yield Line(f"{core} INFO [core.py:402] init engine took 1.00 s")
    where = f"http://{words.get('--host', default='0.0.0.0')}:{port(words)}"  # noqa: S104
    yield Line(f"{api} INFO [entry.py:140] Starting vLLM server on {where}")
    yield Line("INFO:     Started server process [101]")
    yield Line("INFO:     Waiting for application startup.")
    yield Line("INFO:     Application startup complete.")


def _sglang(words: Words, shards: int) -> Iterator[Line]:
    yield Line(f"server_args=ServerArgs(model_path='{words.model}')", 0.05)
    yield Line("[TP0] Init torch distributed begin.", 0.05)
    yield Line("[TP0] Load weight begin. avail mem=138.50 GB")
    yield from _bars("Loading safetensors checkpoint shards", shards, 0.6)
    yield Line("[TP0] Load weight end. type=KimiK25ForConditionalGeneration")
    yield Line("[TP0] KV Cache is allocated. #tokens: 700000", 0.05)
    yield Line("[TP0] Capture cuda graph begin. This can take up to several minutes.")
    for done in range(0, 36, 5):
        percent = 100 * done // 35
        yield Line(f"Capturing batches: {percent:3d}%| {done}/35 [00:00<00:00]", 0.02, bar=True)
    yield Line("[TP0] Capture cuda graph end.")
    yield Line("INFO:     Started server process [101]")
    yield Line("INFO:     Application startup complete.")
    yield Line("The server is fired up and ready to roll!")


def _llamacpp(words: Words) -> Iterator[Line]:
    yield Line("build: 11434 with cc for x86_64-linux-gnu", 0.05)
    yield Line(f"llama_model_loader: loaded meta data from {words.model}", 0.15)
    yield Line("load_tensors: loading model tensors, this can take a while... (mmap = true)", 0.5)
    yield Line("llama_context: n_ctx         = 98304")
    yield Line("llama_kv_cache: size = 6588.00 MiB", 0.1)
    yield Line("common_init_from_params: warming up the model with an empty run", 0.15)
    yield Line("srv    load_model: model loaded")
    yield Line(f"main: server is listening on http://127.0.0.1:{port(words)}")


#: how the engines die: text and exit code
FAILURES: dict[str, tuple[str, int]] = {
    "oom": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB.", 1),
    "no-kv": ("ValueError: No available memory for the cache blocks.", 1),
    "version": ("ValueError: Model architectures ['KimiK25'] are not supported for now.", 1),
    "port": ("OSError: [Errno 98] Address already in use", 1),
    "nccl": ("RuntimeError: NCCL error: unhandled system error", 1),
    "exit0": ("ERROR EngineCore encountered a fatal error.", 0),
}


def port(words: Words) -> int:
    """Return the port the argv names, or the engine's own."""
    own = {"vllm": 8000, "llamacpp": 8080}.get(words.engine, 30000)
    return words.number("--port", default=own)
