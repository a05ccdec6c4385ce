"""The page docs/accuracy.md: what was found, in tables, with the goals beside it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.figures import PROMISE, Bar, Pair, Verdict, errors
from bench.weight_rows import Weights

#: what was set out to be reached: median and ninth decile of the error
GOALS = {"KV tokens": (0.03, 0.08), "decode": (0.15, 0.40)}
#: of a checkpoint's bytes
GOAL_WEIGHTS = 0.005


@dataclass(frozen=True)
class Findings:
    """All pairs: `known` by the shipped parameters, `unseen` by those fitted without the source."""

    known: list[Pair]
    verdicts: list[Verdict]
    unasked: list[Counter[str]]
    unseen: list[Pair] = field(default_factory=list)
    #: each unseen row's error bar, and whether it held
    bars: list[tuple[Bar, bool]] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    #: by the shipped parameters, rows that they were not fitted to
    unfitted: list[Pair] = field(default_factory=list)


def page(found: Findings, *, rows: bool = False) -> str:
    """Return the page, with every row if *rows*."""
    lines = [
        "# How right the planner is",
        "",
        "Made by `python -m bench.accuracy --write`; no figure here is typed by hand.",
        "Every published row that states enough to be asked was asked; the rest is listed below.",
        "An error is the predicted over the measured value, less one; a bias is the median error.",
        "",
    ]
    if found.unseen:
        lines += [
            "## Left out one source at a time",
            "",
            "Each source is predicted by a model fitted without it.",
            "This is the honest figure: the next machine is a source left out.",
            "",
            *_summary(found.unseen),
            *_goals(found),
            *_bars(found.bars),
        ]
    if found.unfitted:
        lines += _unfitted(found.unfitted)
    lines += ["## All sources known", ""]
    if found.unseen:
        lines += ["How well the shipped parameters fit the rows they were fitted to.", ""]
    lines += _summary(found.known)
    lines += _decisions(found.verdicts)
    if found.weights:
        lines += _weights(found.weights)
    lines += _groups("## By set-up", "GPUs, engine", _set_up, found)
    if found.unseen:
        lines += _groups("## By source", "source", _source, found)
        lines += _limits(found)
    lines += _left_out(found.unasked)
    if rows:
        lines += ["## Every row", "", "```text"]
        lines += [
            f"{pair.id:5} {pair.measured:12,.1f} {pair.predicted:12,.1f} {pair.error:+7.1%}  "
            f"{pair.what}"
            for pair in found.known
        ]
        lines += ["```", ""]
    return "\n".join(lines)


def _summary(pairs: Sequence[Pair]) -> list[str]:
    lines = [
        "| what | rows | sources | median error | 9 of 10 within | bias | goal |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        own = [pair for pair in pairs if pair.kind == kind]
        middle, most = errors(own)
        goal = "–"
        if kind in GOALS:
            words = [
                f"{aim:.0%} {_met(error <= aim)}"
                for aim, error in zip(GOALS[kind], (middle, most), strict=True)
            ]
            goal = ", ".join(words)
        sources = len({pair.source for pair in own})
        shown = f"{middle:.1%} | {most:.1%} | {_bias(own)} | {goal}"
        lines.append(f"| {kind} | {len(own)} | {sources} | {shown} |")
    return [*lines, ""]


def _goals(found: Findings) -> list[str]:
    """A sentence for each goal: met or missed, and by how much."""
    lines = []
    for kind, aims in GOALS.items():
        for name, aim, unseen, known in zip(
            ("median", "ninth decile"),
            aims,
            errors([pair for pair in found.unseen if pair.kind == kind]),
            errors([pair for pair in found.known if pair.kind == kind]),
            strict=True,
        ):
            line = f"- {kind}, {name}: {aim:.0%} is {_met(unseen <= aim)}"
            line += f" ({unseen:.1%}; {known:.1%} with all sources known)"
            lines.append(line)
    right = sum(v.right for v in found.verdicts)
    all_right = right == len(found.verdicts)
    lines.append(f"- every decision right: {_met(all_right)} ({right} of {len(found.verdicts)})")
    off = [row for row in found.weights if abs(row.error) > GOAL_WEIGHTS]
    text = f"- weights within {GOAL_WEIGHTS:.1%}: {_met(not off)}"
    text += f" ({', '.join(f'{row.id} {row.error:+.2%}' for row in off)})" if off else ""
    return [*lines, text, ""]


def _bars(bars: Sequence[tuple[Bar, bool]]) -> list[str]:
    lines = [
        "## Error bars",
        "",
        f"A bar promises to hold {PROMISE:.0%} of measurements from a source it does not know.",
        "Another source knew this GPU and engine (`measured`), its generation, or neither.",
        "",
        "| bar | width | rows | held | share |",
        "|---|---|--:|--:|--:|",
    ]
    for kind, width in dict.fromkeys((bar.kind, bar.width) for bar, _ in bars):
        held = [inside for bar, inside in bars if bar.kind == kind]
        share = sum(held) / len(held)
        lines.append(f"| {kind} | {width} | {len(held)} | {sum(held)} | {share:.0%} |")
    inside = [held for _, held in bars]
    lines += [
        "",
        f"The bar holds {sum(inside)} of {len(inside)} rows; it promises {PROMISE:.0%}.",
    ]
    poor = []
    for kind, source in dict.fromkeys((bar.kind, bar.source) for bar, _ in bars):
        held = [inside for bar, inside in bars if (bar.kind, bar.source) == (kind, source)]
        if sum(held) < PROMISE * len(held):
            poor.append(f"- {kind}: {sum(held)} of {len(held)} rows of {_short(source)}")
    if poor:
        lines += ["It holds fewer of some sources:", "", *poor]
    return [*lines, ""]


def _unfitted(pairs: Sequence[Pair]) -> list[str]:
    """Rows kept out of every fit, one by one: other formats, cards and versions of the engine."""
    median, ninth = errors(pairs)
    return [
        "## Rows nothing was fitted to",
        "",
        "Published speeds of `profiles/measurements/unfitted/`, kept out of every fit.",
        f"{len(pairs)} rows: median error {median:.1%}, 9 of 10 within {ninth:.1%}.",
        "Predictions are of the engine as it is planned; a row of an older one says what it was.",
        "",
        "| row | what | measured | predicted | error |",
        "|---|---|--:|--:|--:|",
        *(
            f"| {pair.id} | {pair.what} | {pair.measured:.1f} | {pair.predicted:.1f} "
            f"| {pair.error:+.0%} |"
            for pair in pairs
        ),
        "",
    ]


def _decisions(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    wrong = [v for v in verdicts if not v.right]
    said = f"{len(verdicts) - len(wrong)} of {len(verdicts)} launches were predicted rightly; "
    said += f"{sum(not v.starts for v in verdicts)} of them had been refused or ran out of memory."
    lines = ["## Does it start?", "", said, "A launch predicted as tight counts as starting.", ""]
    lines += [f"- wrong: {v.id} {v.what}; predicted: {v.said}" for v in wrong]
    lines += [
        f"- {v.id} {v.what}; predicted: {v.said}" for v in verdicts if not v.starts and v.right
    ]
    return [*lines, ""]


def _weights(rows: Sequence[Weights]) -> list[str]:
    lines = [
        "## Weights",
        "",
        f"Bytes of whole checkpoints by arithmetic on the config; the goal is {GOAL_WEIGHTS:.1%}.",
        "",
        "| row | weights | published | calculated | error |",
        "|---|---|--:|--:|--:|",
    ]
    lines += [
        f"| {row.id} | {row.what} | {row.published / 1e9:,.1f} GB"
        f" | {row.calculated / 1e9:,.1f} GB | {row.error:+.2%} |"
        for row in rows
    ]
    return [*lines, ""]


def _groups(title: str, name: str, key: Callable[[Pair], str], found: Findings) -> list[str]:
    if not found.known:
        return []
    lines = [title, ""]
    if found.unseen:
        lines += [
            f"| {name} | rows | left out: median | 9 of 10 | bias | known: median | 9 of 10 |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
    else:
        lines += [f"| {name} | rows | median error | 9 of 10 | bias |", "|---|--:|--:|--:|--:|"]
    for group in sorted({key(pair) for pair in found.known}):
        known = [pair for pair in found.known if key(pair) == group]
        unseen = [pair for pair in found.unseen if key(pair) == group]
        middle, most = errors(unseen or known)
        cells = f"{middle:.1%} | {most:.1%} | {_bias(unseen or known)}"
        if unseen:
            middle, most = errors(known)
            cells += f" | {middle:.1%} | {most:.1%}"
        lines.append(f"| {group} | {len(known)} | {cells} |")
    return [*lines, ""]


def _limits(found: Findings) -> list[str]:
    """What the figures above do not say, with the counts that say why."""
    decode = [pair for pair in found.unseen if pair.kind == "decode"]
    source, many = Counter(pair.source for pair in decode).most_common(1)[0]
    machine, most = Counter(_set_up(pair) for pair in decode).most_common(1)[0]
    alone = [
        set_up.removeprefix("decode: ")
        for set_up in sorted({_set_up(pair) for pair in decode})
        if len({pair.source for pair in decode if _set_up(pair) == set_up}) == 1
    ]
    engines = ("vllm", "sglang", "ktransformers", "llamacpp")
    silent = [name for name in engines if not any(f" {name} " in pair.what for pair in decode)]
    unread = [
        name
        for name in engines
        if not any(f" {name} " in pair.what for pair in found.unseen if pair.kind == "prefill")
    ]
    far = sorted(decode, key=lambda pair: -abs(pair.error))[:5]
    machine = machine.removeprefix("decode: ")
    lines = [
        "## What this does not say",
        "",
        f"- {most} of {len(decode)} decode rows are of {machine}: the medians are about it.",
        f"- {many} of {len(decode)} decode rows are of one page, {_short(source)}.",
        f"- One source each: {', '.join(alone)}.",
        f"- No row of decoding could be asked of: {', '.join(silent)}.",
        f"- No row of prefill could be asked of: {', '.join(unread)}.",
        "  Theirs follows from decoding, and its bar is at least the one of `scaled`.",
        "- The farthest decode rows with their source left out: "
        + "; ".join(f"{pair.id} {pair.error:+.0%}" for pair in far)
        + ".",
    ]
    return [*lines, ""]


def _left_out(reasons: Sequence[Counter[str]]) -> list[str]:
    lines = ["## Rows that could not be asked", ""]
    for counter in reasons:
        lines += [f"- {count} × {why}" for why, count in counter.most_common()]
    return [*lines, ""]


def _set_up(pair: Pair) -> str:
    return f"{pair.kind}: {pair.what.split(' TP')[0]}"


def _source(pair: Pair) -> str:
    return f"{pair.kind}: {_short(pair.source)}"


def _short(url: str) -> str:
    """The owner and the last words of an address: enough to tell sources apart."""
    parts = url.removeprefix("https://").strip("/").split("/")
    owner = parts[1] if parts[0] == "github.com" and len(parts) > 1 else parts[0]
    return f"[{owner}{': ' + parts[-1] if len(parts) > 1 else ''}]({url})"


def _bias(pairs: Sequence[Pair]) -> str:
    return f"{statistics.median(pair.error for pair in pairs):+.1%}"


def _met(reached: bool) -> str:  # noqa: FBT001
    return "met" if reached else "missed"
