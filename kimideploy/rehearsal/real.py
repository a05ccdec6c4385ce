"""The same command on the real vLLM, with a tiny checkpoint in place of 595 GB.

Only what a CPU and a three-layer model can't take is changed, and each change is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Plan
from kimideploy.rehearsal.tiny import CONTEXT

#: GiB the CPU build gives its KV cache, far more than the tiny model needs
_CACHE_GIB = "1"
#: flags with a value that make no sense on one CPU: each is left out, and said to be
_DROPPED = {
    "--pipeline-parallel-size": "one stage",
    "--data-parallel-size": "one copy",
    "--decode-context-parallel-size": "nothing to spread",
    "--nnodes": "one machine",
    "--node-rank": "one machine",
    "--master-addr": "one machine",
    "--revision": "the tiny checkpoint is local",
    "--code-revision": "the tiny checkpoint is local",
    "--speculative-config": "no draft of the tiny model exists",
    "--attention-backend": "the CPU build has its own",
    "--moe-backend": "the CPU build has its own",
    "--compilation-config": "it is for GPU kernels",
}
_DROPPED_SWITCHES = {
    "--enable-expert-parallel": "one process",
    "--headless": "one machine",
    "--language-model-only": "the tiny model has no vision tower",
}
#: what is added: weights are random, the tokenizer is a plain one
_ADDED = ("--load-format", "dummy", "--tokenizer-mode", "hf")


def on_tiny(plan: Plan, folder: Path) -> tuple[Plan, tuple[str, ...]]:
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
    node = msgspec.structs.replace(plan.request, model_path=str(folder))
    return msgspec.structs.replace(plan, request=node, launches=(launch,)), changes


def _changed(launch: Launch, folder: Path) -> tuple[Launch, tuple[str, ...]]:
    program, serve, model, *rest = launch.argv
    changes = [f"{model} → {folder}, random weights ({' '.join(_ADDED)})"]
    replaced: dict[str, Callable[[str], str]] = {
        "--tensor-parallel-size": lambda _: "1",
        "--max-model-len": lambda value: str(min(int(value), CONTEXT)),
        "--kv-cache-dtype": lambda _: "bfloat16",
    }
    words: list[str] = []
    pending = list(rest)
    while pending:
        word = pending.pop(0)
        if word in _DROPPED:
            changes.append(f"{word} {pending.pop(0)} left out: {_DROPPED[word]}")
        elif word in _DROPPED_SWITCHES:
            changes.append(f"{word} left out: {_DROPPED_SWITCHES[word]}")
        elif word in replaced:
            value = pending.pop(0)
            new = replaced[word](value)
            words += [word, new]
            if new != value:
                changes.append(f"{word} {value} → {new}")
        else:
            words.append(word)
    env = dict(launch.env) | {"VLLM_CPU_KVCACHE_SPACE": _CACHE_GIB, "HF_HUB_OFFLINE": "1"}
    changes.append(f"VLLM_CPU_KVCACHE_SPACE={_CACHE_GIB}, HF_HUB_OFFLINE=1: no GPU, no hub")
    changed = msgspec.structs.replace(
        launch,
        argv=(program, serve, str(folder), *words, *_ADDED),
        env=tuple(sorted(env.items())),
        headless=False,
    )
    return changed, tuple(changes)
