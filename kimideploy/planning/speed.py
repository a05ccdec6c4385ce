"""Speed: how fast a plan is predicted to be, with error bars and the nearest measurement."""

from __future__ import annotations

import math
from functools import partial

from kimideploy.catalog.fitted import LoadRate
from kimideploy.catalog.measurements import Measurement
from kimideploy.catalog.types import Catalog, EngineId, Format, Gpu
from kimideploy.planning.estimates import DEPTH, Estimate, Nearest, Range, Speed
from kimideploy.planning.evidence import DRIVER, Standing, evidence, measurements_of
from kimideploy.planning.memory import other_weights, routed_weights, stages
from kimideploy.planning.search import Weighed
from kimideploy.planning.steps import (
    Machine,
    Parameters,
    Work,
    accepted,
    decode_step,
    prefill_rate,
    prefill_seconds,
)
from kimideploy.planning.types import Fit

#: loads a plan is estimated at: users, and tokens their sequences hold
USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (2_048, 8_192, 32_768, 131_072, 262_144)
#: the prompt `ttft` is for: a question to a coding agent with some files
_PROMPT = 8_192
_DIGITS = 4


def parameters(catalog: Catalog) -> dict[str, float]:
    """Return the speed model's parameters by name."""
    return {name: entry.value for name, entry in catalog.speed.parameters.items()}


def machine_of(
    gpu: Gpu, engine: EngineId, *, nodes: int = 1, numa: int | None = None
) -> Machine | None:
    """Return what speed depends on of nodes with *gpu*, None if its profile does not say."""
    if gpu.bandwidth is None or gpu.compute is None:
        return None
    link = gpu.interconnect
    return Machine(
        engine=engine,
        generation=gpu.generation,
        bandwidth=float(gpu.bandwidth.bytes_per_second),
        flops=gpu.compute.bf16_teraflops * 1e12,
        link=link.kind,
        link_bandwidth=float(link.bytes_per_second) if link.bytes_per_second else None,
        nodes=nodes,
        numa=numa or 1,
    )


def decode_rate(
    work: Work,
    machine: Machine,
    p: Parameters,
    *,
    sequences: float,
    context: float,
    fed: float | None = None,
) -> float:
    """Output tok/s one of *sequences* users sees, each *context* tokens deep.

    `fed` input tokens are read for every output token of every user, as in steady traffic; the
    prompts of the others are read between one user's steps. None: nothing is read meanwhile.
    """
    parts = decode_step(work, machine, p, sequences=sequences, context=context)
    seconds = sum(parts.values()) / accepted(work, p)
    if fed is not None and sequences > 1:
        seconds += (sequences - 1) * fed / prefill_rate(work, machine, p, fed * 1024)
    return 1 / seconds


def speed_of(chosen: Weighed, catalog: Catalog) -> Speed | None:
    """Return how fast *chosen* is predicted to be, None where nothing is known of its GPU."""
    described = _described(chosen)
    if described is None:
        return None
    work, machine = described
    p = parameters(catalog)
    decoding, reading, basis = _bars(chosen, catalog)
    bar = partial(_range, factor=decoding)
    fit, layout = chosen.fit, chosen.candidate.layout

    def point(users: int, context: int) -> Estimate:
        parts = decode_step(work, machine, p, sequences=users, context=context)
        rate = accepted(work, p) / sum(parts.values())
        return Estimate(
            concurrency=users,
            context=context,
            per_user=bar(rate),
            total=bar(rate * users),
            bound=max(parts, key=lambda cause: parts[cause]),
        )

    points = [
        point(users, context)
        for context in CONTEXTS
        if context <= max(fit.context, CONTEXTS[0])
        for users in _users(fit, context)
        if users >= layout.dp
    ]
    prompt = min(_PROMPT, fit.context)
    rate = prefill_rate(work, machine, p, prompt)
    first = p["first_token"] + prefill_seconds(work, machine, p, prompt)
    return Speed(
        points=tuple(points),
        prefill=_range(rate, reading),
        prompt=prompt,
        ttft=_range(first, reading),
        load=_load(chosen, catalog.speed.load),
        load_network=_load(chosen, catalog.speed.network),
        basis=basis,
        nearest=nearest(chosen, catalog),
    )


def _users(fit: Fit, context: int) -> list[int]:
    """Loads up to the most sequences that the engine takes and the KV cache holds."""
    most = min(fit.kv_tokens // context, fit.sequences or USERS[-1], USERS[-1])
    return sorted({users for users in (*USERS, most) if 1 <= users <= most})


def alone(chosen: Weighed, catalog: Catalog) -> float:
    """Return the output tok/s that a lone user sees, 0 where nothing is known of the GPU."""
    return _total(chosen, catalog, 1, _depth(chosen.fit))


def together(chosen: Weighed, catalog: Catalog) -> float:
    """Return the output tok/s of all the users that the KV cache holds, 0 where it is unknown."""
    depth = _depth(chosen.fit)
    loads = (_total(chosen, catalog, users, depth) for users in _users(chosen.fit, depth))
    return max(loads, default=0.0)


def _depth(fit: Fit) -> int:
    return max(1, min(DEPTH, fit.context))


def _total(
    chosen: Weighed, catalog: Catalog, users: int, context: float, fed: float | None = None
) -> float:
    described = _described(chosen)
    if described is None:
        return 0.0
    rate = decode_rate(*described, parameters(catalog), sequences=users, context=context, fed=fed)
    return users * rate


def nearest(chosen: Weighed, catalog: Catalog) -> Nearest | None:
    """Return the published decode speed most like *chosen*: GPU before engine before layout."""
    c, s = chosen.candidate, chosen.subject

    def distance(m: Measurement) -> tuple[float, ...]:
        return (
            m.gpu != c.gpu,
            m.engine != c.engine,
            m.format != c.format,
            abs(math.log2((m.gpus or 1) / max(1, c.nodes * c.gpus_per_node))),
            m.dcp != c.layout.dcp,
            m.kv_dtype != c.kv_dtype,
            (m.draft > 0) != (c.draft is not None),
            m.confidence != "A",
            m.number("concurrency") or math.inf,
            m.number("context_len") or 0.0,
        )

    like = [
        m
        for m in (*catalog.measurements, *catalog.unfitted)
        if m.usable
        and not m.queued
        and m.number("output_tok_s")
        and (m.gpu == c.gpu or (s.gpu is not None and m.gpu is not None and m.engine == c.engine))
        and (m.gpu == c.gpu or m.format == c.format)
    ]
    best = min(like, key=distance, default=None)
    if best is None or (best.gpu != c.gpu and s.generation is None):
        return None
    users = int(best.number("concurrency") or 1)
    rate = _total(chosen, catalog, users, best.depth, best.fed) if best.depth else 0.0
    return Nearest(
        id=best.id,
        what=_words(best),
        value=best.number("output_tok_s") or 0.0,
        url=best.url,
        date=best.date,
        predicted=_round(rate) if rate else None,
    )


def _words(m: Measurement) -> str:
    users = m.number("concurrency") or 1
    depth = m.number("context_len") or m.number("input_len")
    parts = [
        f"{m.model} {m.format} on {m.gpus}×{m.cells['gpu']}",
        f"{m.engine} TP{m.tp}" + (f"×DCP{m.dcp}" if m.dcp > 1 else ""),
        f"{users:.0f} user{'s' if users != 1 else ''}",
        f"{depth:,.0f} tokens of context" if depth else "short context",
    ]
    return ", ".join(parts) + (", with a draft model" if m.draft else "")


def _described(chosen: Weighed) -> tuple[Work, Machine] | None:
    s, c = chosen.subject, chosen.candidate
    if s.gpu is None:
        return None
    machine = machine_of(s.gpu, c.engine, nodes=c.nodes, numa=s.node.numa)
    form = s.form or _gguf(chosen)
    if machine is None or form is None:
        return None
    a = s.architecture
    hosted = 0.0
    if c.offload is not None and c.offload.gpu_experts is not None:
        hosted = 1 - c.offload.gpu_experts / a.experts
    elif c.offload is not None:
        hosted = c.offload.cpu_layers / (a.layers - a.dense_layers)
    draft = s.draft.tokens if s.draft is not None else 0
    return Work(a, form, c.layout, c.kv_dtype, draft, hosted), machine


def _gguf(chosen: Weighed) -> Format | None:
    """Bytes of a weight in a quant of mixed types, from its file size."""
    s = chosen.subject
    size, other = s.checkpoint.size, s.checkpoint.non_expert
    if size is None or other is None:
        return None
    routed = routed_weights(s.architecture, stages(s.architecture, 1)[0].moe)
    beside = int(other) / other_weights(s.architecture)
    return Format(
        source=s.checkpoint.source,
        expert_bytes=(int(size) - int(other)) / routed,
        mlp_bytes=beside,
        other_bytes=beside,
    )


def _bars(chosen: Weighed, catalog: Catalog) -> tuple[float, float, str]:
    """The factors of the bars of decoding and of prefill, and in words what stands behind them."""
    s, c = chosen.subject, chosen.candidate
    generation = s.generation.id if s.generation is not None else None

    found = measurements_of(catalog)
    decode = evidence(c.gpu, c.engine, generation, found["decode"], catalog.gpus)
    prefill = evidence(c.gpu, c.engine, generation, found["prefill"], catalog.gpus)
    spreads = catalog.speed.spreads
    # prefill shares parameters with decoding; without a row of its own it is scaled at best
    wider = max(spreads[decode.standing].factor, spreads["scaled"].factor)
    reading = spreads["measured"].factor if prefill.standing == "measured" else wider
    name = s.engine.name
    basis: dict[Standing, str] = {
        "measured": f"fitted to {decode.rows} measurements of {name} on this GPU, among others",
        "generation": f"fitted to {decode.rows} measurements of other set-ups of this GPU's"
        " generation",
        "scaled": "scaled by data sheet from GPUs of other generations",
        "guess": (
            "a guess: no profile knows this card, the driver's numbers were taken"
            if s.gpu is not None and s.gpu.source == DRIVER
            else f"a guess: no measurement of decoding with {name} was found"
        ),
    }
    return spreads[decode.standing].factor, reading, basis[decode.standing]


def _load(chosen: Weighed, rates: LoadRate) -> Range:
    """Seconds from the start to readiness, each node reading its part at *rates*."""
    size = float(chosen.subject.checkpoint.size or 0) / chosen.candidate.nodes
    return Range(
        low=_round(rates.start / 2 + size / rates.fast),
        typical=_round(rates.start + size / rates.typical),
        high=_round(2 * rates.start + size / rates.slow),
    )


def _range(value: float, factor: float) -> Range:
    return Range(low=_round(value / factor), typical=_round(value), high=_round(value * factor))


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
