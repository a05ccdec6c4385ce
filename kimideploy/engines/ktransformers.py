"""KTransformers: SGLang's kt fork with some experts of every layer on the GPUs, the rest in RAM.

Sources: https://github.com/kvcache-ai/ktransformers, doc/en/Kimi-K2.5.md (the command, without the
parsers it forgets) and kt-kernel/README.md (what the --kt-* flags mean).
"""

from __future__ import annotations

from kimideploy.engines.sglang import KV, parsers
from kimideploy.engines.site import Site

#: prompts above this many tokens are prefilled on the GPUs, layer by layer
_GPU_PREFILL_TOKENS = 400
#: Why: --kt-cpuinfer has no default. Fewer threads than cores are slow, more are far slower, so
#: an unknown host gets what every two-socket server has. The plan says it is a guess.
CORES_GUESS = 32
_NUMA_GUESS = 1


def command(site: Site) -> tuple[str, ...]:
    """Return the words that serve the plan on its one node."""
    plan, offload, say = site.plan, site.plan.candidate.offload, site.say
    experts = offload.gpu_experts if offload is not None else None
    return (
        *site.engine.command,
        *say("model", site.folder),
        *say("served_name", plan.served_name),
        *say("host", plan.request.bind),
        *say("port", site.port),
        *say("trust_code"),
        *say("kt_weight_path", site.folder),
        *say("kt_method", "RAWINT4"),
        *say("kt_cpuinfer", site.cores if site.cores is not None else CORES_GUESS),
        *say("kt_threadpool_count", site.numa if site.numa is not None else _NUMA_GUESS),
        *say("kt_num_gpu_experts", experts if experts is not None else 1),
        *say("kt_gpu_prefill_token_threshold", _GPU_PREFILL_TOKENS),
        *say("tensor_parallel", site.layout.tp),
        *say("p2p_check", when=site.layout.tp > 1),
        *say("context", plan.fit.context),
        *say("memory_fraction", plan.fit.memory_fraction),
        *say("max_total_tokens", plan.fit.kv_tokens),
        *say("kv_dtype", KV[plan.candidate.kv_dtype]),
        *say("chunked_prefill", plan.fit.batch_tokens, when=plan.fit.batch_tokens is not None),
        *say("mixed_chunk"),
        *say("no_shared_experts_fusion"),
        *say("attention_backend", site.attention or "flashinfer"),
        *parsers(site),
        *say("metrics"),
    )


def environment(_site: Site) -> dict[str, str]:
    """Return what the process finds in its environment: nothing of its own."""
    return {}
