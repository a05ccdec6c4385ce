"""SGLang: the command and environment of one node.

Source: https://docs.sglang.io/cookbook/autoregressive/Moonshotai/Kimi-K2.7-Code
"""

from __future__ import annotations

from kimideploy.catalog.types import KvDtype
from kimideploy.engines.site import Site

#: Why not "auto": a checkpoint may declare an fp8 cache (NVFP4 does), and the plan counted bytes.
KV: dict[KvDtype, str] = {"bf16": "bf16", "fp8": "fp8_e4m3"}
#: rendezvous port of Moonshot's own multi-node example
#: (https://github.com/MoonshotAI/Kimi-K2, docs/deploy_guidance.md)
_RENDEZVOUS = 50000
#: backends that turn a bf16 cache into an fp8 one (sglang/srt/arg_groups/serving_hook.py)
_FP8_ONLY = ("tokenspeed_mla", "cutedsl_mla")

#: other spellings of flags that are ours (sglang/srt/arg_groups/fields)
SYNONYMS = (
    ("--model-path", "--model"),
    ("--tensor-parallel-size", "--tp-size", "--tp"),
    ("--pipeline-parallel-size", "--pp-size"),
    ("--data-parallel-size", "--dp-size"),
    ("--attn-dp-size", "--attention-data-parallel-size", "--enable-dp-attention"),
    ("--decode-context-parallel-size", "--dcp-size"),
    ("--expert-parallel-size", "--ep-size", "--ep"),
    ("--dist-init-addr", "--nccl-init-addr"),
    ("--speculative-draft-model-path", "--speculative-draft-model"),
)


def command(site: Site) -> tuple[str, ...]:
    """Return the words that serve this node's share of the plan."""
    plan, layout, say = site.plan, site.layout, site.say
    # Why: SGLang counts DP attention inside its TP group, the plan counts tp * dp.
    ranks = layout.tp * layout.dp
    return (
        *site.engine.command,
        *say("model", site.weights),
        *say("served_name", plan.served_name),
        *say("host", plan.request.bind),
        *say("port", site.port),
        *say("trust_code"),
        *say("revision", site.revision, when=site.revision is not None),
        *say("tensor_parallel", ranks),
        *say("pipeline_parallel", layout.pp, when=layout.pp > 1),
        *say("dp_attention", layout.dp, when=layout.dp > 1),
        *say("expert_parallel", ranks, when=layout.ep),
        *_across_nodes(site),
        *say("context", plan.fit.context),
        *say("memory_fraction", plan.fit.memory_fraction),
        *say("batch_tokens", plan.fit.batch_tokens, when=plan.fit.batch_tokens is not None),
        *say("sequences", plan.fit.sequences, when=plan.fit.sequences is not None),
        *say("kv_dtype", KV[plan.candidate.kv_dtype]),
        *say("quantization", "modelopt_fp4", when=plan.candidate.format == "nvfp4"),
        *_attention(site),
        *parsers(site),
        *say("metrics"),
        *_draft(site),
    )


def environment(site: Site) -> dict[str, str]:
    """Return what this node's process finds in its environment."""
    if not site.amd:
        return {}
    return {"SGLANG_ROCM_FUSED_DECODE_MLA": "0", "SGLANG_USE_AITER": "1"}


def parsers(site: Site) -> tuple[str, ...]:
    """Return both parsers' words; without them reasoning and tool calls stay in the content."""
    model, say = site.model, site.say
    return (
        *say("tool_parser", model.tool_parser, when=model.tool_parser is not None),
        *say("reasoning_parser", model.reasoning_parser, when=model.reasoning_parser is not None),
    )


def _across_nodes(site: Site) -> tuple[str, ...]:
    nodes, say = site.plan.candidate.nodes, site.say
    if nodes == 1:
        return ()
    return (
        *say("nnodes", nodes),
        *say("node_rank", site.rank),
        *say("dist_init", f"{site.head}:{_RENDEZVOUS}"),
    )


def _attention(site: Site) -> tuple[str, ...]:
    if site.attention in _FP8_ONLY and site.plan.candidate.kv_dtype != "fp8":
        return ()
    return site.say("attention_backend", site.attention, when=site.attention is not None)


def _draft(site: Site) -> tuple[str, ...]:
    draft, say = site.draft, site.say
    if draft is None:
        return ()
    return (
        *say("speculative_algorithm", draft.method.upper()),
        *say("speculative_model", site.draft_weights),
        *say("speculative_revision", site.draft_revision, when=site.draft_revision is not None),
        *say("speculative_steps", draft.tokens),
        *say("speculative_topk", 1),
        *say("speculative_tokens", draft.tokens + 1),
    )
