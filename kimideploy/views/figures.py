"""The sections of a report that have charts: memory, KV capacity and speed.

Each chart comes with the table of its own numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kimideploy.planning.estimates import Estimate, Nearest, Range, Speed
from kimideploy.planning.types import Fit
from kimideploy.planning.types import Share as Bytes
from kimideploy.quantities import GIB
from kimideploy.views.charts import Axis, Mark, Point, Series, Share, curves, number, stack

#: parts of a bar that are drawn on their own; a plan has about ten
_MOST_SHARES = 24
#: the smallest context whose number of sequences is shown
_LEAST_CONTEXT = 4096
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table's column."""

    name: str
    number: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, what must be said beside it, and its numbers as a table."""

    title: str
    svg: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """A published measurement, in words."""

    what: str
    value: str
    url: str
    date: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: sentences, then charts."""

    name: str
    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    measured: Measured | None = field(default=None)


def gib(size: int) -> str:
    """Return bytes as GiB."""
    return f"{size / GIB:,.2f} GiB"


def span(value: Range, unit: str = "tok/s") -> str:
    """Return a prediction with its error bar, as 38 tok/s (31 to 44)."""
    return f"{number(value.typical)} {unit} ({number(value.low)} to {number(value.high)})"


def tokens(count: float) -> str:
    """Return tokens as 128k where they are a multiple of 1,024, else as they are."""
    whole = int(count)
    return f"{whole // _KIB:,}k" if whole and whole % _KIB == 0 else f"{whole:,}"


def memory_section(fit: Fit, gpus: int) -> Section | None:
    """Return bytes by cause, on the fullest GPU and on the host, and what the KV cache holds."""
    lines: list[str] = []
    charts: list[Chart] = []
    if fit.shares:
        which = f"The fullest of {gpus} GPUs" if gpus > 1 else "The GPU"
        for_what = f" for {fit.context:,} tokens" if fit.context > 0 else ""
        short = f"{gib(fit.short)} are missing{for_what}."
        lines.append(f"The engine may fill {fit.memory_fraction:.0%} of each card.")
        charts.append(
            _stack(
                "gpu-memory",
                which,
                fit.shares,
                whole=fit.capacity,
                room=f"{gib(fit.capacity)} on the card",
                notes=(short,) if fit.short else (),
            )
        )
    if fit.ram:
        whole = fit.ram_capacity
        where = "in the node"
        if whole is None:
            whole, where = sum(share.bytes for share in fit.ram), "needed; the node's is unknown"
        room = f"{gib(whole)} {where}"
        charts.append(
            _stack("host-memory", "Host memory of a node", fit.ram, whole=whole, room=room)
        )
    if fit.kv_tokens > 0 and fit.context > 0:
        lines.append(
            f"The KV cache holds {fit.kv_tokens:,} tokens over all ranks; a token takes"
            f" {fit.kv_bytes_per_token:,} bytes of the fullest GPU. That is"
            f" {fit.max_concurrency:,g} requests of {fit.context:,} tokens at once."
        )
        charts.append(_capacity(fit))
    else:
        lines.append("The KV cache holds no tokens, so there is no chart of its capacity.")
    return Section("memory", "Memory", tuple(lines), tuple(charts)) if charts else None


def _capacity(fit: Fit) -> Chart:
    """How many sequences of a length the KV cache holds at once."""
    lengths = [n for n in _doubled(_LEAST_CONTEXT) if n < fit.context] + [fit.context]
    points = []
    for length in lengths:
        held = fit.kv_tokens / length
        words = f"{_held(held)} sequences of {length:,} tokens"
        points.append(Point(length, held, held, held, words))
    here = f"{_held(points[-1].y)} × {tokens(fit.context)}"
    return Chart(
        title="Sequences that fit at once",
        svg=curves(
            "kv-capacity",
            "Sequences that fit at once, over their length",
            f"From {points[0].title} to {points[-1].title}.",
            series=[Series("sequences", tuple(points))],
            x=Axis("tokens of each sequence", log=True, shown=tokens),
            y=Axis("sequences", log=True),
            marks=[Mark(fit.context, here)],
        ),
        columns=(Column("Tokens each"), Column("Sequences"), Column("Whole ones")),
        rows=tuple(
            (f"{length:,}", _held(point.y), f"{fit.kv_tokens // length:,}")
            for length, point in zip(lengths, points, strict=True)
        ),
        notes=("Both axes are logarithmic: twice the length is half the sequences.",),
    )


def speed_section(speed: Speed | None) -> Section:
    """Return what users see and what the machine yields over concurrency, a line a context."""
    title = "Speed over concurrency"
    if speed is None or not speed.points:
        line = "No speed is predicted for this plan, so there is no chart of it."
        return Section("speed", title, (line,))
    prompts = (
        f"Reading prompts: {span(speed.prefill)}."
        f" When idle, the first token of a {speed.prompt:,}-token prompt comes after"
        f" {span(speed.ttft, 's')}."
        f" Ready in {_minutes(speed.load)} from a local disk,"
        f" {_minutes(speed.load_network)} over a network file system."
    )
    lines = (prompts, f"Basis: {speed.basis}.") if speed.basis else (prompts,)
    charts = (
        _speed("per-user", "What each user gets", speed.points, [p.per_user for p in speed.points]),
        _speed("total", "All users together", speed.points, [p.total for p in speed.points]),
    )
    return Section("speed", title, lines, charts, _measured(speed.nearest))


def _stack(
    name: str,
    title: str,
    shares: Sequence[Bytes],
    *,
    whole: int,
    room: str,
    notes: tuple[str, ...] = (),
) -> Chart:
    drawn = [
        Share(s.cause, s.bytes, gib(s.bytes), guess=s.guess, idle=s.cause == "headroom")
        for s in shares[:_MOST_SHARES]
    ]
    if rest := shares[_MOST_SHARES:]:
        size = sum(share.bytes for share in rest)
        guess = any(share.guess for share in rest)
        drawn.append(Share(f"{len(rest)} more", size, gib(size), guess=guess))
    largest = max(shares, key=lambda share: share.bytes)
    about = f"{len(shares)} causes; the largest is {largest.cause} with {gib(largest.bytes)}."
    if any(share.guess for share in shares):
        notes = (*notes, "~ and hatching: a guess, nobody measured or stated it.")
    return Chart(
        title=title,
        svg=stack(name, f"{title}: memory by cause", about, shares=drawn, whole=whole, room=room),
        columns=(
            Column("Cause", number=False),
            Column("Size"),
            Column("Bytes"),
            Column("What it is", number=False),
        ),
        rows=tuple(
            (
                share.cause,
                gib(share.bytes),
                f"{share.bytes:,}",
                "; ".join(filter(None, (share.note, "a guess" if share.guess else None))),
            )
            for share in shares
        ),
        notes=notes,
    )


def _speed(name: str, title: str, points: Sequence[Estimate], values: Sequence[Range]) -> Chart:
    series: dict[int, list[Point]] = {}
    for at, value in zip(points, values, strict=True):
        title_of = f"{_users(at.concurrency)} × {tokens(at.context)}: {span(value)}"
        series.setdefault(at.context, []).append(
            Point(at.concurrency, value.typical, value.low, value.high, title_of)
        )
    contexts = ", ".join(tokens(context) for context in series)
    return Chart(
        title=title,
        svg=curves(
            f"speed-{name}",
            f"{title}, over concurrency",
            f"{len(points)} predictions for contexts of {contexts} tokens:"
            f" from {span(values[0])} at {_users(points[0].concurrency)} to {span(values[-1])} at"
            f" {_users(points[-1].concurrency)}.",
            series=[Series(f"{tokens(n)} context", tuple(found)) for n, found in series.items()],
            x=Axis("users at once", log=True),
            y=Axis("output tok/s"),
        ),
        columns=(
            Column("Context"),
            Column("Users"),
            Column("tok/s"),
            Column("Low"),
            Column("High"),
            Column("Bound by", number=False),
        ),
        rows=tuple(
            (
                f"{at.context:,}",
                f"{at.concurrency:,}",
                number(value.typical),
                number(value.low),
                number(value.high),
                at.bound,
            )
            for at, value in zip(points, values, strict=True)
        ),
        notes=("The band is the error bar; a line ends where the KV cache is full.",),
    )


def _measured(nearest: Nearest | None) -> Measured | None:
    if nearest is None:
        return None
    value = f"{number(nearest.value)} tok/s over all users"
    return Measured(nearest.what, value, nearest.url, nearest.date)


def _doubled(first: int) -> Iterable[int]:
    return (first << n for n in range(52))


def _held(count: float) -> str:
    digits = 0 if count >= 100 else 1 if count >= 10 else 2  # noqa: PLR2004
    return f"{count:,.{digits}f}"


def _users(count: int) -> str:
    return f"{count:,} user" + ("" if count == 1 else "s")


def _minutes(value: Range) -> str:
    return span(value.times(1 / 60), "min")
