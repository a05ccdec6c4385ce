"""Choose among the candidates that fit, and say why and what to watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import floor, inf, log

from msgspec.structs import replace

from kimideploy.catalog.types import Catalog
from kimideploy.planning.notices import applies
from kimideploy.planning.search import Weighed
from kimideploy.planning.speed import alone, together
from kimideploy.planning.types import Goal, Notice

Key = tuple[float | int | str, ...]
#: rates that differ by less decide nothing: the speed model is off by about as much
#: (docs/accuracy.md, decode with each source left out)
_ALIKE = 1.2


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

    def by(rate: Callable[[Weighed, Catalog], float]) -> Callable[[Weighed], Key]:
        """The fastest that loses nothing; of those about as fast the plainest."""

        def loss(w: Weighed) -> Key:
            # Why the KV dtype: fp8 changes answers, and was measured slower, not faster, on H100.
            return (*plain(w)[:2], w.candidate.kv_dtype != "bf16")

        rates = {id(w): rate(w, catalog) for w in fitting}
        best: dict[Key, float] = {}
        for w in fitting:
            best[loss(w)] = max(best.get(loss(w), 0.0), rates[id(w)])
        return lambda w: (*loss(w), _notch(rates[id(w)], best[loss(w)]), *plain(w))

    keys: dict[Goal, Callable[[], Callable[[Weighed], Key]]] = {
        "balanced": lambda: plain,
        "latency": lambda: by(alone),
        "throughput": lambda: by(together),
        "context": lambda: lambda w: (-w.fit.context, *plain(w)),
        # Why: GPUs are paid by the hour, so the cheapest token is the one with the fewest seconds.
        "cost": lambda: by(lambda w, catalog: together(w, catalog) / _paid(w)),
    }
    return sorted(fitting, key=keys[goal]())


def _paid(w: Weighed) -> int:
    """GPUs that nobody else can use: who fills the host's memory has the whole node."""
    each = w.subject.node.gpus if w.fit.ram else w.candidate.gpus_per_node
    return max(1, w.candidate.nodes * each)


def _notch(rate: float, best: float) -> float:
    """How many times _ALIKE *rate* is below *best*; 0 for about as fast, endless for unknown."""
    return floor(log(best / rate) / log(_ALIKE)) if rate > 0 else inf


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
        link = s.gpu.interconnect.kind if s.gpu is not None else "pcie"
        fabric = {"nvlink": "NVLink domain", "xgmi": "xGMI mesh"}.get(link, "node")
        reach = f"one {fabric if s.node.domain >= layout.tp else 'node'}"
        lines.append(f"TP{layout.tp} divides {s.architecture.heads} heads and stays inside {reach}")
    if layout.pp > 1 and s.engine.id != "llamacpp":
        lines.append(f"PP{layout.pp} over the nodes needs little bandwidth, TP over them much")
    if layout.dcp > 1:
        lines.append(f"DCP{layout.dcp} spreads the KV cache that TP would copy {layout.dcp} times")
    elif layout.tp > 1 and any(_but_dcp(w, chosen) for w in fitting):
        lines.append(
            f"no DCP: it would hold {layout.tp} times the tokens, and each step would wait for one"
            " exchange more; --goal throughput takes it where that pays"
        )
    lines += _kv(chosen, fitting)
    if offload is not None and offload.gpu_experts is not None:
        lines.append(
            f"{offload.gpu_experts} of {s.architecture.experts} experts a layer stay on the GPUs"
        )
    if offload is not None and offload.gpu_layers is not None:
        moe = s.architecture.layers - s.architecture.dense_layers
        lines.append(f"experts of {moe - offload.cpu_layers} of {moe} layers live on the GPUs")
    if fit.verdict == "tight":
        end = "least" if fit.kv_tokens < fit.context else "usual"
        lines.append(f"fits with the {end} engine overhead that was seen, not with the most")
    return tuple(lines)


def _but_dcp(other: Weighed, chosen: Weighed) -> bool:
    """Whether *other* is *chosen* with DCP."""
    layout = replace(other.candidate.layout, dcp=chosen.candidate.layout.dcp)
    return other.candidate.layout != layout and chosen.candidate == replace(
        other.candidate, layout=layout
    )


def _kv(chosen: Weighed, fitting: Sequence[Weighed]) -> Iterator[str]:
    """Say why the KV cache has its type, where another would have fitted or been needed."""
    c, fit = chosen.candidate, chosen.fit
    if chosen.subject.request.kv_dtype is not None or c.gpu is None:
        return
    other = next(
        (
            w
            for w in fitting
            if w.candidate.kv_dtype != c.kv_dtype
            and replace(w.candidate, kv_dtype=c.kv_dtype, offload=c.offload) == c
        ),
        None,
    )
    if other is None:
        return
    held = f"{fit.kv_tokens:,} tokens, {other.candidate.kv_dtype} {other.fit.kv_tokens:,}"
    if c.kv_dtype == "bf16":
        yield f"KV cache in bf16, as it was trained: it holds {held}"
    else:
        yield f"KV cache in {c.kv_dtype}: it holds {held}"


def notices(chosen: Weighed, catalog: Catalog) -> tuple[Notice, ...]:
    """Return what the operator should read before paying: computed, then reported by others."""
    s, fit = chosen.subject, chosen.fit
    found: list[Notice] = []
    if fit.verdict == "tight":
        found.append(Notice("tight", "there is little margin: the launch may run out of memory"))
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
    kind = s.gpu.interconnect.kind if s.gpu is not None else None
    found += [
        Notice(rule.code, rule.text, rule.link)
        for rule in catalog.notices
        if applies(rule.when, chosen.candidate, s.model.id, s.generation, kind)
    ]
    return tuple(found)
