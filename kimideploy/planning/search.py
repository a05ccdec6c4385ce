"""Weigh every candidate: those that fit, and a Rejection for each that does not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from kimideploy.catalog.types import Catalog, Model
from kimideploy.planning.candidates import subjects, variants
from kimideploy.planning.fit import CONTEXT_STEP, HEADROOM, KV, fit_on_gpus, need
from kimideploy.planning.inventory import Group, groups
from kimideploy.planning.offload import fit_gguf, fit_hybrid
from kimideploy.planning.rules import Refusal, refuse
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Candidate, Fit, Inventory, Layout, Rejection, Request

#: numbers of nodes a way out may name; PP over 2, 3 and 4 is reported, 8 is the rules' limit
_MORE_NODES = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate that fits, with its Fit and the nodes it would run on."""

    subject: Subject
    candidate: Candidate
    fit: Fit
    group: Group


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that does not; `fit` where memory was weighed, for the numbers."""

    rejection: Rejection
    fit: Fit | None = None


def search(
    request: Request, inventory: Inventory, catalog: Catalog, model: Model
) -> tuple[list[Weighed], list[Refused]]:
    """Return all candidates of *inventory*, in the order they were tried."""
    fitting: list[Weighed] = []
    refused: list[Refused] = []
    for group in groups(inventory):
        for base in subjects(request, group, catalog, model):
            refusal = refuse(base)
            # Why: a KV dtype or a DCP size can be what fails; then the variants tell.
            if refusal is not None and refusal.rule != "kv-dtype":
                refused.append(Refused(refusal.of(base)))
                continue
            for variant in variants(base):
                outcome = _weigh(variant, group)
                if isinstance(outcome, Weighed):
                    fitting.append(outcome)
                    continue
                refused.append(outcome)
                if outcome.rejection.rule == "weights":
                    break
    return fitting, refused


def _weigh(subject: Subject, group: Group) -> Weighed | Refused:
    refusal = refuse(subject)
    if refusal is not None:
        return Refused(refusal.of(subject))
    candidate = subject.candidate()
    if subject.engine.id == "ktransformers":
        fit, offload = fit_hybrid(subject)
        candidate = msgspec.structs.replace(candidate, offload=offload)
    elif subject.engine.id == "llamacpp":
        fit, offload = fit_gguf(subject)
        candidate = msgspec.structs.replace(candidate, offload=offload)
    else:
        fit = fit_on_gpus(subject)
    refusal = _memory(subject, fit)
    if refusal is None:
        return Weighed(subject=subject, candidate=candidate, fit=fit, group=group)
    rejection = refusal.of(subject)
    return Refused(msgspec.structs.replace(rejection, candidate=candidate), fit)


def _memory(subject: Subject, fit: Fit) -> Refusal | None:
    """The last rules: the GPUs hold their share, and so does the host."""
    if fit.verdict == "no" and subject.node.gpus:
        return _on_gpus(subject, fit)
    return _on_host(subject, fit)


def _on_gpus(subject: Subject, fit: Fit) -> Refusal:
    asked = need(subject)
    taken = sum(s.bytes for s in fit.shares if s.cause not in (KV, HEADROOM))
    budget = fit.budget
    outside = sum(s.bytes for s in fit.outside)
    if fit.capacity - budget < outside:
        return Refusal(
            "headroom",
            f"beside a memory fraction of {fit.memory_fraction:g} too little stays free for"
            f" {', '.join(s.cause for s in fit.outside)}",
            need=outside,
            have=fit.capacity - budget,
            way_out="a lower --memory-fraction",
        )
    if taken >= budget:
        return Refusal(
            "weights",
            "weights and overhead leave no room for a KV cache",
            need=taken,
            have=budget,
            way_out=_more_gpus(subject),
        )
    tokens = max(0, budget - taken) // fit.kv_bytes_per_token
    nearest = tokens - tokens % CONTEXT_STEP
    return Refusal(
        "context",
        f"the KV cache holds {tokens:,} of the {asked.least:,} tokens asked for",
        need=asked.least,
        have=tokens,
        way_out=f"--min-context {nearest}" if nearest else None,
    )


def _on_host(subject: Subject, fit: Fit) -> Refusal | None:
    wanted = sum(share.bytes for share in fit.ram)
    if not fit.ram:
        return None
    if fit.ram_capacity is None:
        return Refusal(
            "ram-unknown",
            "experts would live in host memory, and how much there is was not said",
            need=wanted,
            way_out=f"--ram {_gib_up(wanted)}GiB",
        )
    if wanted > fit.ram_capacity or fit.verdict == "no":
        return Refusal(
            "ram",
            f"the experts outside the GPUs do not fit into host memory{_from_disk(subject, fit)}",
            need=wanted,
            have=fit.ram_capacity,
            way_out=f"--ram {_gib_up(wanted)}GiB",
        )
    return None


def _from_disk(subject: Subject, fit: Fit) -> str:
    """What it means that llama.cpp would start all the same and read experts from the disk."""
    if subject.engine.id != "llamacpp" or not subject.disk or not fit.ram_capacity:
        return ""
    a, routed = subject.architecture, fit.ram[0].bytes
    # Why: each token asks for so many experts of each layer, and what is not in memory is read.
    missing = max(0.0, 1 - fit.ram_capacity / sum(share.bytes for share in fit.ram))
    seconds = routed * a.experts_per_token / a.experts * missing / subject.disk
    return f"; mapped from a disk of {subject.disk / 1e9:g} GB/s a token would take {seconds:.2g} s"


def _more_gpus(subject: Subject) -> str | None:
    """Return the least larger layout that holds the weights and a cache, if there is one."""
    node = subject.node
    if subject.engine.id in ("ktransformers", "llamacpp") or subject.layout.dp > 1:
        return None
    for power in range(7):
        tp = 2**power
        if subject.layout.tp < tp <= node.gpus and _serves(subject, 1, Layout(tp=tp)):
            return f"TP{tp}"
    for nodes in _MORE_NODES:
        layout = Layout(tp=node.gpus, pp=nodes)
        if nodes > subject.nodes and _serves(subject, nodes, layout):
            return f"{nodes} nodes: {layout}"
    return None


def _serves(subject: Subject, nodes: int, layout: Layout) -> bool:
    changed = replace(subject, nodes=nodes, layout=layout)
    return refuse(changed) is None and fit_on_gpus(changed).verdict != "no"


def _gib_up(size: int) -> int:
    """Bytes in whole GiB, rounded up to a size memory is sold in steps of."""
    step = 64
    gib = -(-size // (1 << 30))
    return -(-gib // step) * step
