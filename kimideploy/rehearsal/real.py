"""The same command on the real vLLM, with the nano Kimi in place of 595 GB.

Only what the CPU build and a model of 2 M parameters can't take is changed, and each change is
said. What they do take was tried on the real 0.32.0: a foreign attention backend, expert
parallelism, --language-model-only, a revision and the words of several nodes all start and answer
there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Plan
from kimideploy.rehearsal.nano import CONTEXT

#: GiB the CPU build gives its KV cache, far more than the nano Kimi needs
_CACHE_GIB = "1"
#: sizes that one process has: all are 1
_ONE = (
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--decode-context-parallel-size",
    "--nnodes",
)
#: flags with a value that are left out, and why
_DROPPED = {
    "--speculative-config": "no draft of the nano Kimi exists",
    "--moe-backend": "its kernels are for a GPU",
}
#: what is added: the tokenizer is a plain one
_ADDED = ("--tokenizer-mode", "hf")


def on_nano(plan: Plan, folder: Path) -> tuple[Plan, tuple[str, ...]]:
    """Return *plan* with its head's launch changed to serve the checkpoint in *folder*.

    Also returns every change in words. Raises RequestError for a plan of another engine.
    """
    if plan.candidate.engine != "vllm" or not plan.launches:
        raise RequestError(
            f"--rehearse=vllm rehearses a plan for vLLM, this one is for {plan.candidate.engine}",
            hint="--engine vllm, or --rehearse for the stand-in",
        )
    launch, changes = _changed(plan.launches[0], folder)
    if len(plan.launches) > 1:
        changes = (*changes, f"only the first of {len(plan.launches)} nodes is started")
    request = msgspec.structs.replace(plan.request, model_path=str(folder))
    return msgspec.structs.replace(plan, request=request, launches=(launch,)), changes


def _changed(launch: Launch, folder: Path) -> tuple[Launch, tuple[str, ...]]:
    program, serve, model, *rest = launch.argv
    changes = [f"{model} → {folder}, the nano Kimi ({' '.join(_ADDED)})"]
    words: list[str] = []
    for name, value in _pairs(rest):
        why = _DROPPED.get(name)
        new = _small(name, value)
        if why is not None:
            changes.append(f"{name} {value} left out: {why}")
        elif new != value:
            changes.append(f"{name} {value} → {new}")
        if why is None:
            words += [word for word in (name, new) if word is not None]
    env = dict(launch.env) | {"VLLM_CPU_KVCACHE_SPACE": _CACHE_GIB, "HF_HUB_OFFLINE": "1"}
    changes.append(f"VLLM_CPU_KVCACHE_SPACE={_CACHE_GIB}, HF_HUB_OFFLINE=1: no GPU, no hub")
    changed = msgspec.structs.replace(
        launch,
        argv=(program, serve, str(folder), *words, *_ADDED),
        env=tuple(sorted(env.items())),
    )
    return changed, tuple(changes)


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each word with the value that follows it; only flags that change need one."""
    pending = list(words)
    while pending:
        name, equals, value = pending.pop(0).partition("=")
        if name not in (*_ONE, *_DROPPED, "--max-model-len", "--kv-cache-dtype"):
            yield f"{name}{equals}{value}", None
        else:
            yield name, value if equals else (pending.pop(0) if pending else None)


def _small(name: str, value: str | None) -> str | None:
    """Return what the nano Kimi on a CPU takes instead of *value*."""
    if name in _ONE:
        return "1"
    if name == "--kv-cache-dtype":
        # Why: the CPU build starts with an fp8 cache and dies of the first request.
        return "bfloat16"
    if name == "--max-model-len" and value is not None and value.isdecimal():
        return str(min(int(value), CONTEXT))
    return value
