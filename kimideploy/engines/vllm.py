"""vLLM: the command and environment of one node.

Sources: the recipes of https://github.com/vllm-project/recipes (models/moonshotai, strategies)
and, for eight RTX PRO 6000, https://github.com/local-inference-lab/rtx6kpro (models/kimi-k26.md).
"""

from __future__ import annotations

from kimideploy.catalog.types import KvDtype
from kimideploy.engines.site import Site, compact
from kimideploy.errors import RequestError

#: Why not "auto": a checkpoint may declare an fp8 cache (NVFP4 does), and the plan counted bytes.
_KV: dict[KvDtype, str] = {"bf16": "bfloat16", "fp8": "fp8"}

#: seconds: a cold load of 595 GB took 78 minutes on a network file system; vLLM's default is 600
_READY = 3600

#: other spellings of flags that are ours (vllm/engine/arg_utils.py)
SYNONYMS = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
    ("--decode-context-parallel-size", "-dcp"),
    ("--enable-expert-parallel", "-ep"),
    ("--nnodes", "-n"),
    ("--node-rank", "-r"),
    ("--compilation-config", "-cc"),
    ("--gpu-memory-utilization", "--device-memory-utilization"),
    ("--speculative-config", "-sc", "--spec-model", "--spec-method", "--spec-tokens"),
)


def command(site: Site) -> tuple[str, ...]:
    """Return the words that serve this node's share of the plan."""
    plan, layout, say = site.plan, site.layout, site.say
    local = plan.local
    sampling = site.model.sampling
    return (
        *site.engine.command,
        site.weights,
        *say("served_name", plan.served_name),
        *say("host", plan.request.bind),
        *say("port", site.port),
        *say("trust_code"),
        *say("revision", site.revision, when=site.revision is not None),
        # Why: mapped from a network file system, weights come page by page.
        *say("load_strategy", "prefetch", when=local is not None and local.prefetch),
        *say("code_revision", site.revision, when=site.revision is not None),
        *say("tensor_parallel", layout.tp),
        *say("pipeline_parallel", layout.pp, when=layout.pp > 1),
        *say("data_parallel", layout.dp, when=layout.dp > 1),
        *say("decode_context_parallel", layout.dcp, when=layout.dcp > 1),
        *say("expert_parallel", when=layout.ep),
        *_across_nodes(site),
        *say("context", plan.fit.context),
        *say("memory_fraction", plan.fit.memory_fraction),
        *say("batch_tokens", plan.fit.batch_tokens, when=plan.fit.batch_tokens is not None),
        *say("sequences", plan.fit.sequences, when=plan.fit.sequences is not None),
        *say("kv_dtype", _KV[plan.candidate.kv_dtype]),
        *say("attention_backend", site.attention, when=site.attention is not None),
        *_kernels(site),
        *say("mm_data_parallel", "data", when=site.vision),
        *say("text_only", when=plan.candidate.text_only and site.model.vision is not None),
        *say("tool_parser", site.model.tool_parser, when=site.model.tool_parser is not None),
        # Why: without it vLLM refuses tool_choice "auto"; Moonshot's own guide leaves it out.
        *say("auto_tools", when=site.model.tool_parser is not None),
        *say(
            "reasoning_parser",
            site.model.reasoning_parser,
            when=site.model.reasoning_parser is not None,
        ),
        *say(
            "sampling",
            compact(
                {"temperature": sampling.temperature}
                | ({"top_p": sampling.top_p} if sampling.top_p is not None else {})
            ),
        ),
        *_draft(site),
    )


def environment(site: Site) -> dict[str, str]:
    """Return what this node's process finds in its environment."""
    env = {
        "VLLM_ENGINE_READY_TIMEOUT_S": str(_ready(site)),
        "VLLM_NO_USAGE_STATS": "1",
    }
    if site.plan.fit.graphs_set_aside is False:
        env["VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"] = "0"
    if site.plan.candidate.nodes > 1 and site.node.address is not None:
        env["VLLM_HOST_IP"] = site.node.address
    if site.amd:
        env["VLLM_ROCM_USE_AITER"] = "1"
        env["VLLM_ROCM_QUICK_REDUCE_QUANTIZATION"] = "INT4"
    if site.plan.candidate.format == "mxfp4":
        env |= {
            "AITER_MXFP4_INTERMEDIATE": "1",
            "VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS": "1",
            "VLLM_ROCM_USE_AITER_MOE": "1",
            "VLLM_ROCM_USE_SKINNY_GEMM": "0",
        }
    if site.node.generation == "sm120":
        env |= {
            "NCCL_P2P_LEVEL": "SYS",
            "VLLM_DISABLED_KERNELS": "MarlinFP8ScaledMMLinearKernel",
        }
    return env


def _ready(site: Site) -> int:
    """Seconds vLLM waits for its engine: an hour, or longer where the disk was measured slow."""
    local = site.plan.local
    reading = local.seconds if local is not None and local.seconds is not None else 0
    return max(_READY, 2 * reading + _READY // 2)


def _across_nodes(site: Site) -> tuple[str, ...]:
    nodes, say = site.plan.candidate.nodes, site.say
    if nodes == 1:
        return ()
    if site.layout.dp > 1:
        raise RequestError(
            "vLLM: data parallelism over several nodes is not rendered, use TP and PP"
        )
    return (
        *say("nnodes", nodes),
        *say("node_rank", site.rank),
        *say("master_addr", site.head),
        *say("headless", when=site.rank > 0),
    )


def _kernels(site: Site) -> tuple[str, ...]:
    """MI350X and MI355X: the INT4 experts are tuned for flydsl, without the fused all-reduce."""
    if site.node.generation != "gfx950" or site.plan.candidate.format != "int4":
        return ()
    return (
        *site.say("moe_backend", "flydsl"),
        *site.say("compilation", compact({"pass_config": {"fuse_allreduce_rms": False}})),
    )


def _draft(site: Site) -> tuple[str, ...]:
    draft = site.draft
    if draft is None:
        return ()
    config = {
        "method": draft.method,
        "model": site.draft_weights,
        "num_speculative_tokens": draft.tokens,
    }
    if site.draft_revision is not None:
        config["revision"] = config["code_revision"] = site.draft_revision
    return site.say("speculative", compact(config))
