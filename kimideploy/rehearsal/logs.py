"""What the engines print while they load, once they serve, and when they are told to end.

vLLM's lines are those of the real 0.32.0 (tests/judges/logs; weights, cache and graphs, which a
CPU run does not show, by the text in its source). SGLang's and llama-server's are by the text in
their sources (0.5.23, b11434). Numbers are made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kimideploy.rehearsal.argv import Words

_PORTS = {"vllm": 8000, "llamacpp": 8080}
_SGLANG_PORT = 30000
_GRAPHS = 35
_ART = ("", "       █     █     █▄   ▄█", "▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log and the share of the load it takes."""

    text: str
    share: float = 0.0
    #: printed over the line before, as progress bars are
    bar: bool = False


def loading(words: Words, shards: int, clock: Clock = time.time) -> Iterator[Line]:
    """Yield the log of a good load; the shares add up to about one."""
    match words.engine:
        case "vllm":
            yield from _vllm(words, shards, clock)
        case "llamacpp":
            yield from _llamacpp(words)
        case _:
            yield from _sglang(words, shards, clock)


def serving(words: Words, clock: Clock = time.time) -> Iterator[Line]:
    """Yield what is printed once the server listens."""
    match words.engine:
        case "vllm":
            where = f"http://{words.get('--host', default='0.0.0.0')}:{port(words)}"  # noqa: S104
            yield Line(f"{_info('APIServer pid=101', clock)} [entry.py:140] Starting vLLM server on"
                       f" {where}")  # fmt: skip
            yield from _uvicorn()
        case "llamacpp":
            host = words.get("--host", default="127.0.0.1")
            yield Line("srv  llama_server: model loaded")
            yield Line(f"srv  llama_server: listening on http://{host}:{port(words)}")
        case _:
            yield from _uvicorn()
            yield Line(f"[{_stamp(clock)}] The server is fired up and ready to roll!")


def farewell(engine: str) -> tuple[str, ...]:
    """Return what is printed when the engine is told to end."""
    if engine == "llamacpp":
        return ("srv    operator(): operator(): cleaning up before exit...",)
    done = "INFO:     Waiting for application shutdown.", "INFO:     Application shutdown complete."
    return ("INFO:     Shutting down", *done)


def port(words: Words) -> int:
    """Return the port the argv names, or the engine's own."""
    return words.number("--port", default=_PORTS.get(words.engine, _SGLANG_PORT))


def _uvicorn() -> Iterator[Line]:
    yield Line("INFO:     Started server process [101]")
    yield Line("INFO:     Waiting for application startup.")
    yield Line("INFO:     Application startup complete.")


def _shards(title: str, count: int, share: float, head: str = "") -> Iterator[Line]:
    """A bar that ends each of its states with a new line, as the engines' does."""
    for done in range(count + 1):
        percent = 100 * done // count
        text = f"{head}{title}: {percent:3d}% Completed | {done}/{count} [00:00<00:00,  9.99it/s]\n"
        yield Line(text, share / count if done else 0.0, bar=True)


def _graphs(title: str, head: str, share: float) -> Iterator[Line]:
    for done in range(0, _GRAPHS + 1, 5):
        percent = 100 * done // _GRAPHS
        end = "\n" if done == _GRAPHS else ""
        text = f"{head}{title}: {percent:3d}%|{'█' * (percent // 10):10s}| {done}/{_GRAPHS}"
        yield Line(f"{text} [00:00<00:00, 9.99it/s]{end}", share / 8, bar=True)


def _vllm(words: Words, shards: int, clock: Clock) -> Iterator[Line]:
    def say(who: str, text: str, share: float = 0.0) -> Line:
        return Line(f"{_info(who, clock)} {text}", share)

    api, core, worker = "APIServer pid=101", "EngineCore pid=102", "Worker_TP0 pid=103"
    context = words.number("--max-model-len", default=0) or 262_144
    for row in _ART:
        yield say(api, f"[api_utils.py:347] {row}")
    yield say(api, f"[api_utils.py:347]  █▄█▀ █     █     █     █  model   {words.model}")
    yield say(api, f"[api_utils.py:286] non-default args: {{'model_tag': '{words.model}'}}")
    yield say(api, "[model.py:733] Resolved architecture: KimiK25ForConditionalGeneration")
    yield say(api, f"[model.py:2152] Using max model len {context}", 0.05)
    yield say(core, f"[core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model="
              f"'{words.model}'", 0.05)  # fmt: skip
    yield say(worker, f"[gpu_model_runner.py:5040] Starting to load model {words.model}...")
    yield from _shards(
        "Loading safetensors checkpoint shards", shards, 0.55, "(Worker_TP0 pid=103) "
    )
    yield say(worker, "[gpu_model_runner.py:5150] Model loading took 72.02 GiB memory and"
              " 1.000000 seconds")  # fmt: skip
    yield say(worker, "[backends.py:1167] Dynamo bytecode transform time: 0.10 s", 0.05)
    yield say(worker, "[monitor.py:53] torch.compile took 0.10 s in total", 0.05)
    yield say(worker, "[gpu_worker.py:760] Available KV cache memory: 46.8 GiB", 0.05)
    times = f"{715_072 / context:.2f}x"
    size = "[kv_cache_utils.py:2327] GPU KV cache size: 715,072 tokens, Maximum concurrency for"
    yield say(core, f"{size} {context:,} tokens per request: {times}")
    yield from _graphs("Capturing CUDA graphs (decode, FULL)", "(Worker_TP0 pid=103) ", 0.2)
    yield say(
        worker, "[gpu_model_runner.py:6582] Graph capturing finished in 1 secs, took 0.50 GiB"
    )
    yield say(core, "[core.py:402] init engine (profile, create kv cache, warmup model) took 1.0 s")
    yield say(api, '[parser_manager.py:38] "auto" tool choice has been enabled.')


def _sglang(words: Words, shards: int, clock: Clock) -> Iterator[Line]:
    def say(text: str, share: float = 0.0, who: str = " TP0") -> Line:
        return Line(f"[{_stamp(clock)}{who}] {text}", share)

    yield say(f"server_args=ServerArgs(model_path='{words.model}', …)", 0.1, who="")
    yield say("Load weight begin. avail mem=138.50 GB")
    yield from _shards("Loading safetensors checkpoint shards", shards, 0.6)
    yield say("Load weight end. elapsed=1.00 s, type=KimiK25ForConditionalGeneration,"
              " avail mem=64.20 GB, mem usage=74.30 GB.")  # fmt: skip
    yield say("KV Cache is allocated. #tokens: 700000, KV size: 45.81 GB")
    yield say("Memory pool end. avail mem=17.90 GB", 0.1)
    yield say("Capture target decode CUDA graph begin. avail mem=17.90 GB")
    yield from _graphs("Capturing batches (bs=1 avail_mem=16.90 GB)", "", 0.2)
    yield say("Capture target decode CUDA graph end. elapsed=1.00 s, mem usage=1.00 GB,"
              " avail mem=16.90 GB.")  # fmt: skip


def _llamacpp(words: Words) -> Iterator[Line]:
    context = words.number("--ctx-size", "-c", default=0) or 262_144
    yield Line("srv  llama_server: initializing ...")
    yield Line(f"srv    load_model: loading model '{words.model}'", 0.05)
    yield Line("llama_model_loader: loaded meta data with 60 key-value pairs and 1096 tensors from"
               f" {words.model} (version GGUF V3 (latest))", 0.15)  # fmt: skip
    yield Line("load_tensors: loading model tensors, this can take a while... (load_mode = mmap)")
    yield Line("load_tensors: offloading output layer to GPU")
    yield Line("load_tensors: offloaded 62/62 layers to GPU", 0.6)
    yield Line(f"llama_context: n_ctx                 = {context}")
    yield Line("llama_kv_cache:      CUDA0 KV buffer size =  6588.00 MiB", 0.2)
    yield Line(f"srv    load_model: initializing, n_slots = 1, n_ctx_slot = {context}")


def _info(who: str, clock: Clock) -> str:
    return f"({who}) INFO {time.strftime('%m-%d %H:%M:%S', time.localtime(clock()))}"


def _stamp(clock: Clock) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(clock()))
