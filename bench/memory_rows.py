"""Published startup logs as questions to the planner: how many tokens, or does it start at all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kimideploy.catalog.find import plain
from kimideploy.catalog.fitted import OverheadFile
from kimideploy.catalog.measurements import Measurement, read_measurements
from kimideploy.catalog.types import Catalog, Checkpoint, Model
from kimideploy.planning.fit import fit_with
from kimideploy.planning.memory import (
    kv_bytes_per_token,
    routed_weights,
    stages,
    weight_shares,
)
from kimideploy.planning.overhead import Settings, Situation, overhead
from kimideploy.planning.subject import Subject
from kimideploy.planning.types import Fit, Layout, Node, Request
from kimideploy.quantities import GIB

#: from when on vLLM releases set graphs aside unless told not to (v0.21.0)
_ESTIMATED_SINCE = "2026-06"
#: passes and sequences of vLLM's defaults on cards of 70 GiB and more (engine/arg_utils.py)
_BATCH, _SEQUENCES = 8192, 1024
#: sequences where a row leaves them out of a command it otherwise shows
_TUNED = 128
#: tokens of context where a row names none: a server that starts serves that
_LEAST = 8192


@dataclass(frozen=True, slots=True)
class Log:
    """A launch somebody logged. `tokens`: what its cache held; `starts`: whether it ran."""

    measured: Measurement
    subject: Subject
    settings: tuple[Settings, ...]
    tokens: int | None
    starts: bool | None

    def predicted(self, known: OverheadFile) -> Fit:
        """Return the Fit of this very launch, by what *known* says.

        Where no memory fraction is stated, the better of the engine's default and its highest.
        """
        subject = replace(self.subject, known=known)
        fits = [fit_with(subject, settings) for settings in self.settings]
        return next((fit for fit in fits if fit.verdict != "no"), fits[-1])


def logs(measurements: Iterable[Measurement], catalog: Catalog) -> list[Log]:
    """Return the rows that can be asked, in their order."""
    return [log for m in measurements if not isinstance(log := read(m, catalog), str)]


def read(m: Measurement, catalog: Catalog) -> Log | str:
    """Return *m* as a launch, or why it is none."""
    if m.confidence == "C" or m.engine not in ("vllm", "sglang"):
        return f"confidence {m.confidence}, engine {m.cells['engine']}"
    found = _model(m, catalog)
    gpu = catalog.gpus.get(m.gpu or "")
    if found is None or gpu is None:
        return f"no profile for {m.model} or {m.cells['gpu']}"
    model, checkpoint = found
    tokens, starts = m.number("kv_tokens"), _starts(m.cells["outcome"])
    fraction = m.number("mem_fraction")
    if "NCCL graph XML" in m.cells["quote"]:
        return "ran with an NCCL graph file, which no plan has"
    if tokens is None and starts is None:
        return "neither tokens nor a clear outcome"
    if not m.cells["tp"].strip():
        return "no layout stated"
    layout = Layout(tp=m.tp, pp=m.pp, dp=m.dp, dcp=m.dcp, ep=m.ep)
    engine = catalog.engines[m.engine]
    stated = m.number("max_model_len")
    context = min(int(stated), model.context) if stated else min(_LEAST, model.context)
    split = "weights" in m.cells["mm_config"]
    request = Request(
        model=model.id,
        engine=m.engine,
        context=context if tokens is None else _LEAST,
        min_context=context if tokens is None else _LEAST,
        kv_dtype=m.kv_dtype,
        draft=m.draft > 0,
    )
    subject = Subject(
        request=request,
        model=model,
        architecture=catalog.architectures[model.architecture],
        checkpoint=checkpoint,
        form=catalog.formats.get(checkpoint.format),
        engine=engine,
        gpu=gpu,
        generation=catalog.generations[gpu.generation],
        node=Node(
            name="node0",
            gpu=gpu.id,
            gpus=min(layout.gpus, gpu.per_node or 8),
            gpu_memory=int(gpu.memory.usable),
            generation=gpu.generation,
            domain=gpu.interconnect.domain,
        ),
        nodes=1,
        layout=layout,
        kv_dtype=m.kv_dtype,
        tier="",
        known=catalog.overhead,
        vision_split=split,
    )
    policy = engine.memory
    fractions = (fraction,) if fraction is not None else (policy.fraction, policy.fraction_max)
    settings = tuple(_settings(m, fraction) for fraction in fractions)
    return Log(m, subject, settings, int(tokens) if tokens is not None else None, starts)


def _settings(m: Measurement, fraction: float) -> Settings:
    note = m.cells["cudagraph_note"]
    said = re.search(r"ESTIMATE_CUDAGRAPHS=(\d)", note)
    if said:
        estimated = said[1] == "1"
    elif "estimator" in note:
        estimated = "off" not in note
    else:
        estimated = m.date >= _ESTIMATED_SINCE
    captured = re.search(r"capture[ -]size[ =](\d+)", note)
    defaults = "default" in m.cells["mem_fraction"]
    return Settings(
        fraction=fraction,
        batch_tokens=int(m.number("max_num_batched_tokens") or _BATCH),
        sequences=int(m.number("max_num_seqs") or (_SEQUENCES if defaults else _TUNED)),
        estimated=estimated,
        captured=int(captured[1]) if captured else None,
    )


def _model(m: Measurement, catalog: Catalog) -> tuple[Model, Checkpoint] | None:
    for model in catalog.models.values():
        names = [plain(name) for name in (model.id, model.name, *model.aliases)]
        if not any(plain(m.model).startswith(name) for name in names):
            continue
        for checkpoint in model.checkpoints:
            if checkpoint.format == m.format and checkpoint.exists:
                return model, checkpoint
    return None


def _starts(outcome: str) -> bool | None:
    text = outcome.lower()
    if "stale" in text or "kubernetes" in text or "without" in text:
        return None
    if text.startswith(("refused", "oom")) or "oom at" in text or "cuda oom" in text:
        return False
    return True if text.startswith("ok") else None


def hybrid_rows(catalog: Catalog) -> list[tuple[Measurement, str, str]]:
    """Return the KTransformers launches that ran, with yes or no: do they fit by our arithmetic."""
    found = []
    for m in read_measurements("memory", catalog.gpus):
        experts = re.search(r"gpu-experts=(\d+)|(\d+) GPU expert", m.cells["other"])
        gpu = catalog.gpus.get(m.gpu or "")
        tokens = m.number("kv_tokens") or m.number("max_model_len")
        if m.engine != "ktransformers" or experts is None or gpu is None or tokens is None:
            continue
        chunk = m.number("max_num_batched_tokens")
        needed = _hybrid_bytes(m, catalog, int(experts[1] or experts[2]), int(tokens), chunk)
        fraction = catalog.engines["ktransformers"].memory.fraction
        fits = needed <= int(gpu.memory.usable) * fraction
        what = f"{m.gpus}×{m.gpu}, {experts[0]}, {tokens:,.0f} tokens: {needed / GIB:.1f} GiB a GPU"
        found.append((m, f"{what}, {m.cells['outcome']}", "yes" if fits else "no"))
    return found


def _hybrid_bytes(
    m: Measurement, catalog: Catalog, experts: int, tokens: int, chunk: float | None
) -> int:
    a, form, layout = catalog.architectures["kimi-k2"], catalog.formats["int4"], Layout(tp=m.tp)
    stage = stages(a, 1)[0]
    whole = int(routed_weights(a, stage.moe) * form.expert_bytes)
    p = {name: entry.value for name, entry in catalog.overhead.parameters.items()}
    situation = Situation("ktransformers", a, layout, None, "pcie", 0)
    beside = overhead(situation, Settings(1.0, int(chunk or _BATCH), 1), p)
    needed = sum(
        share.bytes for share in weight_shares(a, form, layout, stage, vision=0, routed=False)
    )
    needed += whole // a.experts * experts // m.tp
    needed += tokens * kv_bytes_per_token(a, layout, stage, "bf16") + beside.taken
    # experts of one layer are streamed through only where prompts are read on the GPU
    return needed + (whole // stage.moe // m.tp if chunk is not None else 0)
