"""The named rules. Each looks at a Subject and returns a Refusal or None; none looks anywhere else.

Order matters only for the message: the first rule that refuses is the one that is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kimideploy.catalog.types import Claim
from kimideploy.catalog.versions import denial, older
from kimideploy.planning.memory import checkpoint_bytes
from kimideploy.planning.overhead import Settings, overhead
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Rejection

#: more pipeline stages than this were run by nobody (PP4 is the largest reported)
_LARGEST_PP = 8
#: AITER's MLA kernel wants a multiple of 16 heads on each GPU
#: (https://docs.sglang.io/cookbook/autoregressive/Moonshotai/Kimi-K2.7-Code)
AITER_HEADS = 16
#: instructions kt-kernel's RAWINT4 method is built on (kt-kernel README); its AVX2 backend
#: (https://github.com/kvcache-ai/ktransformers/pull/1942) is unproved with these models
RAWINT4_ISA = ("avx512f", "avx512bw")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate can't be: the reason in words, the numbers, the nearest change that would."""

    rule: str
    reason: str
    way_out: str | None = None
    need: int | None = None
    have: int | None = None
    link: str | None = None

    def of(self, subject: Subject) -> Rejection:
        """Return the Rejection of *subject* for this refusal."""
        return Rejection(
            candidate=subject.candidate(),
            rule=self.rule,
            reason=self.reason,
            need=self.need,
            have=self.have,
            way_out=self.way_out,
            link=self.link,
        )


Rule = Callable[[Subject], "Refusal | None"]


def checkpoint_exists(s: Subject) -> Refusal | None:
    """A checkpoint nobody published can't be planned; say what it would take."""
    if s.checkpoint.exists:
        return None
    reason = s.checkpoint.note or f"no {s.checkpoint.id} checkpoint of {s.model.name} is published"
    if s.form is None or s.gpu is None:
        return Refusal("no-checkpoint", reason)
    size = checkpoint_bytes(s.architecture, s.form)
    fraction = s.engine.memory.fraction
    beside = overhead(s.situation, Settings(fraction, 8192, 128), s.overheads)
    each = int(s.node.gpu_memory * fraction) - beside.taken
    if each <= 0:
        return Refusal("no-checkpoint", reason, need=size)
    gpus = -(-size // each)
    valid = [n for n in _gpu_counts(s) if n >= gpus]
    layout = f"; {gpus} GPUs is no valid layout" if gpus not in valid else ""
    following = f", the next valid layout is {valid[0]} GPUs" if layout and valid else ""
    return Refusal(
        "no-checkpoint",
        f"{reason}; it would be {size / 1e12:.2f} TB of weights, {gpus} × {s.gpu.name} by memory"
        f" alone{layout} (TP divides {s.architecture.heads} heads){following}",
        way_out="--checkpoint int4, which is what Moonshot trained and ships",
        need=size,
    )


def _gpu_counts(s: Subject) -> list[int]:
    """GPU counts that TP inside a node times PP over nodes can make, ascending."""
    heads, inside = s.architecture.heads, max(1, min(s.node.gpus or 1, s.node.domain))
    tps = [tp for tp in range(1, heads + 1) if heads % tp == 0 and tp <= max(inside, 8)]
    return sorted({tp * pp for tp in tps for pp in (1, 2, 4, 8, 16)})


def engine_loads_format(s: Subject) -> Refusal | None:
    """The engine must load the weight format."""
    if s.checkpoint.format in s.engine.formats:
        return None
    return Refusal(
        "engine-format",
        f"{s.engine.name} does not load {s.checkpoint.format} weights",
        way_out=f"it loads {', '.join(s.engine.formats)}",
    )


def engine_runs_vendor(s: Subject) -> Refusal | None:
    """The engine must run on the GPU's vendor."""
    if s.generation is None or s.generation.vendor in s.engine.vendors:
        return None
    return Refusal(
        "engine-vendor", f"{s.engine.name} does not run on {s.generation.vendor} GPUs here"
    )


def needs_gpu(s: Subject) -> Refusal | None:
    """Only llama.cpp serves without a GPU."""
    if s.node.gpus or s.engine.id == "llamacpp":
        return None
    return Refusal(
        "no-gpu",
        f"{s.engine.name} needs at least one GPU and {s.node.name} has none that can be used",
    )


def _claimed(claim: Claim | None, rule: str, what: str, where: str) -> Refusal | None:
    if claim is None:
        return Refusal(rule, f"nobody states that {what} runs on {where}")
    if claim.support in ("verified", "works"):
        return None
    verb = "runs but gives wrong output" if claim.support == "broken" else "does not run"
    why = f": {claim.why}" if claim.why else ""
    return Refusal(rule, f"{what} {verb} on {where}{why}", link=claim.link)


def format_runs(s: Subject) -> Refusal | None:
    """The GPU's generation must compute the weight format."""
    if s.generation is None:
        return None
    claim = s.generation.formats.get(s.checkpoint.format)
    return _claimed(claim, "format-on-gpu", f"the {s.checkpoint.format} format", s.generation.name)


def kv_dtype_runs(s: Subject) -> Refusal | None:
    """Engine and GPU must know the KV dtype."""
    if s.kv_dtype not in s.engine.kv:
        return Refusal("kv-dtype", f"{s.engine.name} has no {s.kv_dtype} KV cache")
    if s.generation is None:
        return None
    claim = s.generation.kv.get(s.kv_dtype)
    refusal = _claimed(claim, "kv-dtype", f"a {s.kv_dtype} KV cache", s.generation.name)
    if refusal is None:
        return None
    return Refusal(refusal.rule, refusal.reason, way_out="--kv-dtype bf16", link=refusal.link)


def heads_divide(s: Subject) -> Refusal | None:
    """Attention heads are dealt out over TP ranks without rest."""
    heads, tp = s.architecture.heads, s.layout.tp
    if heads % tp == 0:
        return None
    lower = max(n for n in range(1, tp) if heads % n == 0)
    return Refusal(
        "heads",
        f"TP{tp} does not divide {heads} attention heads",
        need=tp,
        have=heads,
        way_out=f"TP{lower} does",
    )


def experts_divide(s: Subject) -> Refusal | None:
    """With expert parallelism every rank holds the same number of experts."""
    ranks = s.layout.tp * s.layout.dp
    if not s.layout.ep or s.architecture.experts % ranks == 0:
        return None
    return Refusal("experts", f"{s.architecture.experts} experts do not divide over {ranks} ranks")


def tp_inside_domain(s: Subject) -> Refusal | None:
    """TP exchanges twice a layer, so it stays inside one NVLink domain (or one PCIe node)."""
    tp, node = s.layout.tp, s.node
    if tp == 1:
        return None
    # Why: cards without a switched fabric talk over PCIe, and TP8 was measured there.
    switched = s.gpu is not None and s.gpu.interconnect.kind in ("nvlink", "xgmi")
    reach = node.domain if switched else node.gpus
    if tp <= reach:
        return None
    pp = -(-tp // max(1, node.gpus))
    return Refusal(
        "tp-domain",
        f"TP{tp} spans more than the {reach} GPUs that reach each other directly",
        need=tp,
        have=reach,
        way_out=f"TP{tp // pp}×PP{pp}" if tp % pp == 0 and pp > 1 else f"TP{reach}",
    )


def engine_has_layout(s: Subject) -> Refusal | None:
    """The engine must know each kind of parallelism the layout uses."""
    layout, engine = s.layout, s.engine
    used = {
        "tp": layout.tp > 1,
        "pp": layout.pp > 1,
        "dp": layout.dp > 1,
        "ep": layout.ep,
        "dcp": layout.dcp > 1,
    }
    lacking = [name for name, on in used.items() if on and name not in engine.layouts]
    if lacking:
        return Refusal(
            "engine-layout", f"{engine.name} has no {' or '.join(lacking)} for this model"
        )
    if s.nodes > 1 and not engine.multi_node:
        return Refusal("one-node", f"{engine.name} serves this model from one node only")
    if engine.id != "llamacpp" and layout.pp > min(_LARGEST_PP, s.architecture.layers):
        return Refusal("pp-layers", f"PP{layout.pp} leaves too few layers on a stage")
    return None


def dcp_is_sound(s: Subject) -> Refusal | None:
    """Decode context parallelism divides TP and must not give gibberish on this GPU."""
    if s.layout.dcp == 1:
        return None
    if s.layout.tp % s.layout.dcp:
        return Refusal("dcp", f"DCP{s.layout.dcp} does not divide TP{s.layout.tp}")
    claim = s.generation.features.get("dcp") if s.generation is not None else None
    where = s.generation.name if s.generation is not None else "this machine"
    return _claimed(claim, "dcp", "decode context parallelism", where)


def expert_parallel_runs(s: Subject) -> Refusal | None:
    """Expert parallelism must not be known to fail on this GPU."""
    claim = s.generation.features.get("expert_parallel") if s.generation is not None else None
    if not s.layout.ep or claim is None or s.generation is None:
        return None
    return _claimed(claim, "expert-parallel", "expert parallelism", s.generation.name)


def draft_without_pp(s: Subject) -> Refusal | None:
    """EAGLE3 can't cross pipeline stages, and needs a draft model somebody trained."""
    if not s.request.draft:
        return None
    if s.draft is None:
        return Refusal(
            "no-draft",
            f"no draft model of {s.model.name} is known for {s.engine.name}",
            way_out="leave --draft out",
        )
    if s.layout.pp > 1:
        return Refusal("draft-pp", "EAGLE3 does not work with PP", way_out="leave --draft out")
    return None


def aiter_heads(s: Subject) -> Refusal | None:
    """SGLang on AMD computes MLA with AITER, in blocks of 16 heads a GPU: TP4 at most."""
    if s.engine.id != "sglang" or s.generation is None or s.generation.vendor != "amd":
        return None
    heads, tp = s.architecture.heads, s.layout.tp
    if (heads // tp) % AITER_HEADS == 0:
        return None
    return Refusal(
        "aiter-heads",
        f"TP{tp} leaves {heads // tp} heads a GPU and AITER needs a multiple of {AITER_HEADS}",
        way_out=f"TP{heads // AITER_HEADS}",
        link="https://docs.sglang.io/cookbook/autoregressive/Moonshotai/Kimi-K2.7-Code",
    )


def ktransformers_runs(s: Subject) -> Refusal | None:
    """kt-kernel's wheel covers some generations, and RAWINT4 wants AVX-512."""
    if s.engine.id != "ktransformers":
        return None
    if s.generation is not None:
        claim = s.generation.features.get("ktransformers")
        refusal = _claimed(claim, "kt-wheel", "the kt-kernel wheel", s.generation.name)
        if refusal is not None:
            return refusal
    if s.node.cpu_flags is None:
        return None
    missing = [flag for flag in RAWINT4_ISA if flag not in s.node.cpu_flags]
    if not missing:
        return None
    return Refusal(
        "cpu-isa",
        f"RAWINT4 needs {' and '.join(RAWINT4_ISA)} and this CPU lacks {', '.join(missing)}",
        way_out="a GGUF checkpoint on llama.cpp runs with AVX2",
        link="https://github.com/kvcache-ai/ktransformers/pull/1942",
    )


def version_serves(s: Subject) -> Refusal | None:
    """The engine version a plan installs must be new enough for the model and not denied here."""
    pinned = s.engine.versions.pinned
    floor = s.model.engines.get(s.engine.id)
    if floor is not None and older(pinned, floor.minimum):
        return Refusal(
            "engine-version",
            f"{s.model.name} needs {s.engine.name} {floor.minimum} and {pinned} would be installed",
        )
    generation = s.generation.id if s.generation is not None else None
    denied = denial(s.engine, pinned, generation=generation, architecture=s.node.architecture)
    if denied is None:
        return None
    return Refusal("engine-version", f"{s.engine.name} {pinned}: {denied.why}", link=denied.link)


RULES: tuple[Rule, ...] = (
    engine_loads_format,
    checkpoint_exists,
    needs_gpu,
    engine_runs_vendor,
    version_serves,
    format_runs,
    ktransformers_runs,
    heads_divide,
    engine_has_layout,
    tp_inside_domain,
    aiter_heads,
    experts_divide,
    expert_parallel_runs,
    draft_without_pp,
    dcp_is_sound,
    kv_dtype_runs,
)


def refuse(subject: Subject) -> Refusal | None:
    """Return the first rule's refusal, or None when the candidate may be weighed."""
    for rule in RULES:
        refusal = rule(subject)
        if refusal is not None:
            return refusal
    return None
