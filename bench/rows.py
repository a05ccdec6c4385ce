"""Published speeds as questions to the model: what was served, on what, under which load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kimideploy.catalog.find import plain
from kimideploy.catalog.measurements import Measurement
from kimideploy.catalog.types import Catalog
from kimideploy.planning.speed import decode_rate, machine_of
from kimideploy.planning.steps import Machine, Parameters, Work, prefill_seconds
from kimideploy.planning.types import Layout

#: tokens in the cache of a run said to have a short or no context: a question and half an answer
_SHORT = 512


@dataclass(frozen=True, slots=True)
class Question:
    """A measured speed in tok/s: `decode` of one user, or `prefill` of one prompt."""

    measured: Measurement
    kind: str
    #: the load in words
    load: str
    value: float
    predicted: Callable[[Parameters], float]


def questions(measurements: Iterable[Measurement], catalog: Catalog) -> list[Question]:
    """Return the usable rows as questions, in their order."""
    return [q for m in measurements if not isinstance(q := question(m, catalog), str)]


def question(m: Measurement, catalog: Catalog) -> Question | str:
    """Return *m* as a question, or why it is none."""
    if m.confidence == "C" or m.engine is None:
        return f"confidence {m.cells['confidence']}, engine {m.cells['engine']}"
    if m.at_fault:
        return "its own table says that the engine was at fault"
    described = subject(m, catalog)
    if isinstance(described, str):
        return described
    work, machine = described
    if m.engine == "ktransformers":
        return _prefill(m, work, machine)
    return _decode(m, work, machine)


def subject(m: Measurement, catalog: Catalog) -> tuple[Work, Machine] | str:
    """Return what *m* served and on what, or what is missing to say it."""
    gpu = catalog.gpus.get(m.gpu or "")
    form = catalog.formats.get(m.format) if m.format is not None else None
    models = [plain(name) for x in catalog.models.values() for name in (x.id, x.name, *x.aliases)]
    if not any(plain(m.model).startswith(name) for name in models):
        return f"{m.model} is another model"
    if gpu is None or form is None:
        return f"no profile for {m.cells['gpu']} or {m.cells['weight_format']}"
    if m.engine is None:
        return f"no profile for {m.cells['engine']}"
    dp = m.dp if m.engine == "sglang" else 1
    layout = Layout(tp=m.tp // dp, pp=m.pp, dp=max(m.dp, 1), dcp=m.dcp, ep=m.ep)
    nodes = -(-(m.gpus or 1) // (gpu.per_node or 8))
    machine = machine_of(gpu, m.engine, nodes=nodes, numa=2)
    if machine is None:
        return f"no bandwidth known of {gpu.id}"
    architecture = catalog.architectures["kimi-k2"]
    hosted = 1.0 if m.engine == "ktransformers" else 0.0
    return Work(architecture, form, layout, m.kv_dtype, m.draft, hosted), machine


def _decode(m: Measurement, work: Work, machine: Machine) -> Question | str:
    sequences = m.number("concurrency")
    if sequences is None:
        return "no concurrency stated"
    if m.queued:
        return "a queue that never empties: how many ran at once is not stated"
    total, user = m.number("output_tok_s"), m.number("output_tok_s_per_user")
    tpot = m.number("mean_tpot_ms")
    context, fed = m.depth, m.fed
    if fed is None:
        context = max(context, _SHORT)
        value = user or (total / sequences if total else None)
    else:
        value = user or (1000 / tpot if tpot else None)
    if not value:
        return "no speed of one user stated"
    return Question(
        m,
        "decode",
        f"{sequences:.0f} users at {context:,.0f} tokens",
        value,
        lambda p: decode_rate(work, machine, p, sequences=sequences, context=context, fed=fed),
    )


def _prefill(m: Measurement, work: Work, machine: Machine) -> Question | str:
    rate, prompt = m.number("prefill_tok_s"), m.length("input_len")
    if rate is None or prompt is None or m.number("concurrency") != 1:
        return "experts on the GPUs and CPUs are not stated"
    return Question(
        m,
        "prefill",
        f"a prompt of {prompt:,.0f} tokens",
        rate,
        lambda p: prompt / prefill_seconds(work, machine, p, prompt),
    )
