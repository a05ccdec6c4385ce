"""What is known to be wrong with a combination of model, GPU, engine and layout.

The planner rejects most of these; a plan may be older than the facts, or written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.catalog.versions import older
from kimideploy.doctor.case import Case
from kimideploy.doctor.check import GPUS, PLANNED, check, engine
from kimideploy.doctor.types import Finding
from kimideploy.errors import RequestError
from kimideploy.planning.notices import applies
from kimideploy.planning.rules import AITER_HEADS


@check(
    "fit",
    "blocks",
    scope=PLANNED,
    why="without room for the cache the engine ends after it has loaded for an hour",
    link="https://github.com/vllm-project/vllm/issues/40652",
    refusal=RequestError,
)
def fit(case: Case) -> Iterator[Finding]:
    """The plan fits, with a cache for at least one request of its context."""
    found = case.plan.plan.fit
    if found.verdict == "no" or found.kv_tokens < found.context:
        yield Finding(
            f"the cache holds {found.kv_tokens:,} tokens, and one request may take"
            f" {found.context:,}",
            "a shorter --context, --kv-dtype fp8, --text-only or more GPUs",
        )
    elif found.verdict == "tight":
        yield Finding(
            "it fits only if the engine's overhead is at the low end of what was seen",
            "a shorter --context leaves more room",
            "warns",
        )


@check(
    "format-broken",
    "blocks",
    scope=GPUS & PLANNED,
    why="weights of a format that the GPU's kernels compute wrongly give fluent nonsense",
    link="https://github.com/vllm-project/vllm/issues/40357",
    refusal=RequestError,
)
def format_broken(case: Case) -> Iterator[Finding]:
    """The GPU computes the format of the weights rightly (INT4 on SM121 does not)."""
    generation, candidate = case.plan.generation, case.plan.plan.candidate
    if generation is None or candidate.engine == "llamacpp":
        return
    claim = generation.formats.get(candidate.format)
    if claim is not None and claim.support in ("broken", "unsupported"):
        why = f": {claim.why}" if claim.why else ""
        yield Finding(
            f"{candidate.format} is {claim.support} on {generation.name}{why}",
            "a GGUF on llama.cpp: --engine llamacpp",
        )


@check(
    "dcp-broken",
    "blocks",
    scope=GPUS & PLANNED,
    why="decode context parallelism drifted into gibberish on Ampere",
    link="https://github.com/vllm-project/vllm/issues/41623",
    refusal=RequestError,
)
def dcp_broken(case: Case) -> Iterator[Finding]:
    """Decode context parallelism is off where it gives gibberish (SM80)."""
    generation = case.plan.generation
    claim = generation.features.get("dcp") if generation is not None else None
    if case.plan.layout.dcp > 1 and claim is not None and claim.support == "broken":
        yield Finding(f"DCP{case.plan.layout.dcp}: {claim.why}", "plan again without --dcp")


@check(
    "b200-tp4",
    "warns",
    scope=engine("vllm"),
    why='four of them answered "!!!!" with the cache above 90 % and long contexts',
    link="https://github.com/vllm-project/vllm/issues/42426",
)
def b200_tp4(case: Case) -> Iterator[Finding]:
    """Four B200 of 180 GB are not filled to the brim."""
    if _is_noticed(case, "b200-tp4-nan"):
        yield Finding(
            f"{case.plan.plan.candidate.label}: tight, and seen to answer NaN",
            "--context 131072 or less; kimideploy verify looks for it",
        )


@check(
    "all-reduce-16",
    "notes",
    scope=engine("vllm"),
    why="custom all-reduce was reported not to take 16 ranks; from 0.32.0 on it does, or turns"
    " itself off between nodes",
    link="https://github.com/local-inference-lab/rtx6kpro",
)
def all_reduce_16(case: Case) -> Iterator[Finding]:
    """With 16 ranks custom all-reduce is of a version that takes them, or off."""
    thresholds = case.catalog.thresholds
    if (
        case.plan.layout.tp < case.count("wide_ranks")
        or "--disable-custom-all-reduce" in case.command.argv
    ):
        return
    found = case.engine
    version = found.version if found is not None else case.plan.plan.pins.engine_version
    if version is not None and older(version, thresholds.versions["wide_all_reduce"].version):
        yield Finding(f"TP{case.plan.layout.tp} with vLLM {version}", "--disable-custom-all-reduce")


@check(
    "aiter-heads",
    "blocks",
    scope=engine("sglang"),
    why="AITER's MLA needs a multiple of 16 heads on each GPU",
    link="https://docs.sglang.io/cookbook/autoregressive/Moonshotai/Kimi-K2.7-Code",
    refusal=RequestError,
)
def aiter_heads(case: Case) -> Iterator[Finding]:
    """On AMD's GPUs each has a multiple of 16 heads."""
    heads = case.catalog.architectures[case.plan.model.architecture].heads
    if case.plan.amd and (heads // case.plan.layout.tp) % AITER_HEADS:
        yield Finding(
            f"TP{case.plan.layout.tp} leaves {heads // case.plan.layout.tp} heads",
            f"TP{heads // AITER_HEADS}",
        )


@check(
    "kt-tp",
    "warns",
    scope=engine("ktransformers"),
    why="RAWINT4 at TP4 was reported to give corrupt output where TP1 did not",
    link="https://github.com/kvcache-ai/ktransformers/issues/2076",
)
def kt_tp(case: Case) -> Iterator[Finding]:
    """KTransformers runs with TP1."""
    if _is_noticed(case, "kt-tp-corrupt"):
        yield Finding(
            f"TP{case.plan.layout.tp} with KTransformers",
            "kimideploy verify before you trust it, or one GPU",
        )


@check(
    "a100-gsp",
    "notes",
    scope=engine("vllm", "sglang"),
    why="some versions of it took nodes down while they loaded large models",
    link="https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1118",
)
def a100_gsp(case: Case) -> Iterator[Finding]:
    """The driver is not the one that was reported to fail on A100 boards."""
    driver = case.facts.driver
    version = case.known(driver.version if driver is not None else None, "driver", "GPUs")
    for failing in case.catalog.thresholds.drivers:
        here = failing.generation == case.plan.node.generation and case.wanted > 1
        if here and failing.version == version:
            yield Finding(
                f"driver {version} on A100: {failing.why}",
                "watch the kernel's log for Xid 62 and 119",
            )


def _is_noticed(case: Case, code: str) -> bool:
    """Whether the plan is of the kind that the notice *code* of `notices.yaml` is for."""
    site = case.plan
    gpu = case.catalog.gpus.get(site.node.gpu or "")
    kind = gpu.interconnect.kind if gpu is not None else None
    return any(
        rule.code == code
        and applies(rule.when, site.plan.candidate, site.model.id, site.generation, kind)
        for rule in case.catalog.notices
    )
