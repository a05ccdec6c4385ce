"""Choose among the candidates that fit, and say why and what to watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kimideploy.catalog.types import Catalog, NoticeRule
from kimideploy.planning.search import Weighed
from kimideploy.planning.types import Goal, Notice

Key = tuple[float | int | str, ...]


def best_first(fitting: Sequence[Weighed], goal: Goal, catalog: Catalog) -> list[Weighed]:
    """Return *fitting* in the order of *goal*; equal candidates keep the order they were tried."""
    ranks = {tier.id: tier.rank for tier in catalog.tiers}
    engines = {engine: index for index, engine in enumerate(catalog.engines)}

    def plain(w: Weighed) -> Key:
        """The plainest way to serve well: what was run by others, with the fewest specialities."""
        layout = w.candidate.layout
        size = w.subject.checkpoint.size
        return (
            w.fit.verdict == "tight",
            # Why: answers as good as the published weights come before speed, speed before rank.
            w.candidate.format == "gguf" and not w.subject.checkpoint.lossless,
            bool(w.fit.ram),
            ranks.get(w.candidate.tier, len(ranks)),
            engines[w.candidate.engine],
            # Why: among quants of one tier the larger loses less.
            -(size if w.candidate.engine == "llamacpp" and size is not None else 0),
            w.candidate.nodes,
            layout.dp,
            layout.dcp,
            w.candidate.kv_dtype != "bf16",
            layout.ep,
            -layout.tp,
        )

    keys: dict[Goal, Callable[[Weighed], Key]] = {
        "balanced": plain,
        "latency": lambda w: (
            bool(w.fit.ram),
            w.candidate.layout.pp,
            *plain(w),
        ),
        "throughput": lambda w: (
            w.fit.verdict == "tight",
            ranks.get(w.candidate.tier, len(ranks)),
            engines[w.candidate.engine],
            w.candidate.kv_dtype != "bf16",
            # Why: DCP8 gave 43 % more output on 8 × H200 (vLLM recipe of K2-Thinking).
            -w.candidate.layout.dcp,
            *plain(w),
        ),
        "context": lambda w: (-w.fit.context, *plain(w)),
        "cost": lambda w: (
            w.fit.verdict == "tight",
            w.candidate.nodes * w.candidate.gpus_per_node,
            *plain(w),
        ),
    }
    return sorted(fitting, key=keys[goal])


def reasons(
    chosen: Weighed, fitting: Sequence[Weighed], goal: Goal, catalog: Catalog
) -> tuple[str, ...]:
    """Say in sentences why *chosen* was taken."""
    s, fit, layout = chosen.subject, chosen.fit, chosen.candidate.layout
    title = next((tier.title for tier in catalog.tiers if tier.id == chosen.candidate.tier), "")
    lines = [f"tier {chosen.candidate.tier}: {title}" if title else f"tier {chosen.candidate.tier}"]
    others = {w.candidate.tier for w in fitting} - {chosen.candidate.tier}
    if others:
        lines.append(f"also fits, but comes after for goal {goal}: {', '.join(sorted(others))}")
    offload = chosen.candidate.offload
    if layout.tp > 1:
        reach = "one NVLink domain" if s.node.domain >= layout.tp else "one node"
        lines.append(f"TP{layout.tp} divides {s.architecture.heads} heads and stays inside {reach}")
    if layout.pp > 1 and s.engine.id != "llamacpp":
        lines.append(f"PP{layout.pp} over the nodes needs little bandwidth, TP over them much")
    if layout.dcp > 1:
        lines.append(f"DCP{layout.dcp} spreads the KV cache that TP would copy {layout.dcp} times")
    if offload is not None and offload.gpu_experts is not None:
        lines.append(
            f"{offload.gpu_experts} of {s.architecture.experts} experts a layer stay on the GPUs"
        )
    if offload is not None and offload.gpu_layers is not None:
        moe = s.architecture.layers - s.architecture.dense_layers
        lines.append(f"experts of {moe - offload.cpu_layers} of {moe} layers live on the GPUs")
    if fit.verdict == "tight":
        lines.append(
            "fits only at the low end of the engine overhead that was seen (--allow-tight)"
        )
    return tuple(lines)


def notices(chosen: Weighed, catalog: Catalog) -> tuple[Notice, ...]:
    """Return what the operator should read before paying: computed, then reported by others."""
    s, fit = chosen.subject, chosen.fit
    found: list[Notice] = []
    if fit.verdict == "tight":
        found.append(Notice("tight", "there is no margin: the launch may run out of memory"))
    if fit.context < s.wanted_context:
        found.append(
            Notice(
                "context-cut",
                f"the context is cut to {fit.context:,} of {s.wanted_context:,} tokens;"
                f" --context {s.wanted_context} looks for a way to serve it all",
            )
        )
    if s.checkpoint.official is False and s.checkpoint.format != "gguf":
        found.append(Notice("unofficial", f"{s.checkpoint.repo} is not published by Moonshot"))
    revision = s.request.revision or s.checkpoint.revision
    if revision is None:
        found.append(
            Notice(
                "unpinned",
                "no revision is pinned: the hub's current one is taken;"
                " --revision COMMIT makes the plan repeatable",
            )
        )
    if s.node.gpus > chosen.candidate.gpus_per_node:
        used = chosen.candidate.gpus_per_node
        found.append(Notice("idle-gpus", f"this plan uses {used} of the node's {s.node.gpus} GPUs"))
    found += [
        Notice(rule.code, rule.text, rule.link)
        for rule in catalog.notices
        if _applies(rule, chosen)
    ]
    return tuple(found)


def _applies(rule: NoticeRule, w: Weighed) -> bool:
    when, c, s = rule.when, w.candidate, w.subject
    kind = s.gpu.interconnect.kind if s.gpu is not None else None
    offload = c.offload is not None and (
        c.offload.cpu_layers > 0 or c.offload.gpu_experts is not None
    )
    members: tuple[tuple[tuple[str, ...], str | None], ...] = (
        (when.models, s.model.id),
        (when.formats, c.format),
        (when.engines, c.engine),
        (when.gpus, c.gpu),
        (when.generations, s.generation.id if s.generation is not None else None),
        (when.vendors, s.generation.vendor if s.generation is not None else None),
        (when.interconnects, kind),
        (when.kv, c.kv_dtype),
    )
    least = (
        (when.tp, c.layout.tp),
        (when.pp, c.layout.pp),
        (when.dcp, c.layout.dcp),
        (when.dp, c.layout.dp),
        (when.nodes, c.nodes),
    )
    exact = ((when.ep, c.layout.ep), (when.draft, c.draft is not None), (when.offload, offload))
    return (
        all(not allowed or value in allowed for allowed, value in members)
        and (when.tp_most is None or c.layout.tp <= when.tp_most)
        and all(bound is None or value >= bound for bound, value in least)
        and all(wanted is None or value == wanted for wanted, value in exact)
    )
