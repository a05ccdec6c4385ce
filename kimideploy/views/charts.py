"""Charts as inline SVG: pure functions of numbers and words, styled by the page's own classes.

A chart is drawn 420 units wide, so that it is as readable on a phone as beside another one on a
desk. Its words are text, every datum is one element of class `point` or `share` with a `title`,
and nothing in it is left unescaped. Whoever shows one puts a table of the same numbers behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

#: colours that report.css.j2 has; later series get a dashed line, too
COLOURS = 8
WIDTH = 420
_LEFT, _RIGHT, _TOP, _PLOT = 46, 14, 26, 190
#: a letter is about this wide, and no text may run over the next one
_LETTER = 8.0
_ROW = 20
_MOST_TICKS = 6
_LARGE, _SMALL = 1e15, 1e-3
#: a file may hold any number; arithmetic with larger ones ends in infinity
_HIGHEST = 1e300

Format = Callable[[float], str]


def number(value: float) -> str:
    """Return *value* short enough for an axis: 0.5, 64, 3.5k, 120M."""
    size = abs(value)
    if size >= _LARGE or 0 < size < _SMALL:
        return f"{value:.0e}"
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= scale:
            return f"{value / (1e3 if unit == 'k' else scale):,.3g}{unit}"
    return f"{value:,.3g}" if size < 1000 else f"{value:,.0f}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole: its words, its size, and the text of that size."""

    label: str
    size: int
    shown: str
    guess: bool = False
    #: not used by anything: drawn without colour
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its error bar; without one, low and high are the value."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, joined from left to right. `plain`: a line without marks."""

    label: str
    points: tuple[Point, ...]
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis says, whether equal steps are equal factors, and how a number is written."""

    label: str
    log: bool = False
    shown: Format = number


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the x axis worth a line and a word."""

    x: float
    label: str


def stack(
    name: str, title: str, about: str, *, shares: Sequence[Share], whole: int, room: str
) -> str:
    """Return a bar of *shares* with a row of words for each.

    `whole` is the room there is, and `room` its text; what does not fit runs past its line.
    """
    total = sum(share.size for share in shares)
    # Why at least 1: a file may say 0 of 0.
    scale = WIDTH / max(whole, total, 1)
    bar: list[str] = []
    rows: list[str] = []
    left = 0.0
    for index, share in enumerate(shares):
        colour = "idle" if share.idle else f"s{index % COLOURS}"
        width = share.size * scale
        hint = f"<title>{_text(share.label)}: {_text(share.shown)}</title>"
        bar.append(
            f'<g class="share">{hint}<rect class="fill {colour}" x="{_n(left)}" y="22"'
            f' width="{_n(width)}" height="40"/>{_hatched(name, share, (left, 22, width, 40))}</g>'
        )
        left += width
        y = 86 + index * _ROW
        percent = f"{share.size / max(whole, 1):.1%}"
        rows.append(
            f'<rect class="fill {colour}" x="0" y="{y}" width="13" height="13"/>'
            f"{_hatched(name, share, (0, y, 13, 13))}"
            f'<text x="20" y="{y + 11}">{_clipped(("~ " if share.guess else "") + share.label, 34)}'
            f'</text><text class="end" x="352" y="{y + 11}">{_text(share.shown)}</text>'
            f'<text class="end soft" x="{WIDTH}" y="{y + 11}">{percent}</text>'
        )
    edge = min(whole * scale, WIDTH)
    anchor = "end" if edge > WIDTH / 2 else "start"
    line = (
        f'<text class="{anchor} soft" x="{_n(edge)}" y="13">{_text(room)}</text>'
        f'<line class="limit" x1="{_n(edge)}" x2="{_n(edge)}" y1="17" y2="67"/>'
    )
    hatch = (
        f'<defs><pattern id="{name}-hatch" width="6" height="6" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)"><line class="hatch" x1="0" x2="0" y1="0" y2="6"/>'
        "</pattern></defs>"
    )
    height = 86 + len(shares) * _ROW
    return _svg(name, title, about, height, [hatch, *bar, line, *rows])


def curves(
    name: str,
    title: str,
    about: str,
    *,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
) -> str:
    """Return lines of points with their error bands; *series* has at least one point."""
    legend, top = _legend([one.label for one in series])
    every = [point for one in series for point in one.points]
    xs = [point.x for point in every]
    across = _Scale(x, min(xs), max(xs), _LEFT + 6, WIDTH - _RIGHT)
    lowest = min(point.low for point in every) if y.log else 0.0
    up = _Scale(y, lowest, max(p.high for p in every), _TOP + top + _PLOT, _TOP + top, spare=True)
    body = [*_frame(across, up, x, y, xs), *legend]
    for mark in marks:
        at = across(mark.x)
        anchor = "end" if at > WIDTH / 2 else "start"
        shift = -5 if anchor == "end" else 5
        body.append(
            f'<line class="limit" x1="{_n(at)}" x2="{_n(at)}" y1="{_n(up.end)}"'
            f' y2="{_n(up.start)}"/><text class="{anchor} strong" x="{_n(at + shift)}"'
            f' y="{_n(up.end + 11)}">{_text(mark.label)}</text>'
        )
    # Why two rounds: no band may lie over the line of another.
    for index, one in enumerate(series):
        body += _band(one, index, across, up)
    for index, one in enumerate(series):
        body += _line(one, index, across, up)
    return _svg(name, title, about, _TOP + top + _PLOT + 44, body)


class _Scale:
    """From a number to a place on the page, and the numbers that are worth a tick."""

    def __init__(
        self, axis: Axis, low: float, high: float, start: float, end: float, *, spare: bool = False
    ) -> None:
        self.log, self.start, self.end = axis.log, start, end
        low, high = (min(max(bound, -_HIGHEST), _HIGHEST) for bound in (low, high))
        if axis.log:
            # Why: a logarithm wants more than nothing, and a range more than a point.
            low = max(low, 1e-6)
            high = max(high, low)
            if spare or high == low:
                low, high = low / 1.5, high * 1.5
        else:
            high = max(high, low)
            high = _ceiling(high) if spare else high
            high = high if high > low else low + max(abs(low), 1.0)
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round numbers within the scale."""
        if not self.log:
            step = _step(self.high - self.low)
            first = math.ceil(self.low / step)
            return [n * step for n in range(first, first + 12) if n * step <= self.high * 1.0001]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if len(decades) <= 4 else (1,)  # noqa: PLR2004
        every = [10.0**n * factor for n in decades for factor in factors]
        found = [value for value in every if self.low <= value <= self.high]
        return found[:: -(-len(found) // 8) or 1]


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis, xs: Sequence[float]) -> Iterator[str]:
    """Yield the grid, the ticks and what the axes say."""
    yield f'<text class="soft" x="0" y="{_n(up.end - 12)}">{_text(y.label)}</text>'
    for value in up.ticks():
        at = up(value)
        yield (
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH}" y1="{_n(at)}" y2="{_n(at)}"/>'
            f'<text class="end soft" x="{_LEFT - 6}" y="{_n(at + 4)}">'
            f"{_text(y.shown(value))}</text>"
        )
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH}" y1="{_n(up.start)}" y2="{_n(up.start)}"/>'
    # Why the data's own: powers of two are what people run, and a tick under a point is read.
    own = sorted(set(xs))
    free = -math.inf
    for value in own if across.log and len(own) <= 2 * _MOST_TICKS else across.ticks():
        at, words = across(value), x.shown(value)
        half = len(words) * _LETTER / 2
        at_text = min(max(at, half), WIDTH - half)
        if at_text - half >= free:
            free = at_text + half + _LETTER
            yield (
                f'<line class="axis" x1="{_n(at)}" x2="{_n(at)}" y1="{_n(up.start)}"'
                f' y2="{_n(up.start + 4)}"/><text class="middle soft" x="{_n(at_text)}"'
                f' y="{_n(up.start + 17)}">{_text(words)}</text>'
            )
    middle = _n((_LEFT + WIDTH) / 2)
    yield f'<text class="middle soft" x="{middle}" y="{_n(up.start + 37)}">{_text(x.label)}</text>'


def _band(one: Series, index: int, across: _Scale, up: _Scale) -> Iterator[str]:
    points = sorted(one.points, key=lambda point: point.x)
    if not any(p.low < p.high for p in points):
        return
    edge = [f"{_n(across(p.x))},{_n(up(p.high))}" for p in points]
    edge += [f"{_n(across(p.x))},{_n(up(p.low))}" for p in reversed(points)]
    if len(points) > 1:
        yield f'<polygon class="band {_colour(index)}" points="{" ".join(edge)}"/>'
    for p in points:
        at = _n(across(p.x))
        yield (
            f'<line class="whisker {_colour(index)}" x1="{at}" x2="{at}" y1="{_n(up(p.low))}"'
            f' y2="{_n(up(p.high))}"/>'
        )


def _line(one: Series, index: int, across: _Scale, up: _Scale) -> Iterator[str]:
    points = sorted(one.points, key=lambda point: point.x)
    path = " ".join(f"{_n(across(p.x))},{_n(up(p.y))}" for p in points)
    yield f'<polyline class="line {_colour(index)}" points="{path}"/>'
    for p in points if not one.plain else ():
        shape = _shape(index, across(p.x), up(p.y))
        hint = f"<title>{_text(p.title)}</title>"
        yield f'<path class="point fill {_colour(index)}" d="{shape}">{hint}</path>'


def _colour(index: int) -> str:
    return f"s{index % COLOURS}" + (" dashed" if index // COLOURS % 2 else "")


def _shape(index: int, x: float, y: float) -> str:
    """A circle, a square, a diamond or a triangle: who sees no colours tells lines apart, too."""
    match index % 4:
        case 0:
            return f"M{_n(x - 4)} {_n(y)}a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"
        case 1:
            return f"M{_n(x - 3.6)} {_n(y - 3.6)}h7.2v7.2h-7.2z"
        case 2:
            return f"M{_n(x)} {_n(y - 5)}l5 5l-5 5l-5-5z"
        case _:
            return f"M{_n(x)} {_n(y - 4.8)}l4.8 8.4h-9.6z"


def _legend(labels: Sequence[str]) -> tuple[list[str], int]:
    """Return the marks with their words, and the height they take; nothing for one line."""
    if len(labels) == 1:
        return [], 0
    parts: list[str] = []
    x, y = 0.0, 0
    for index, label in enumerate(labels):
        words = label if len(label) <= 40 else label[:39] + "…"  # noqa: PLR2004
        width = 30 + len(words) * _LETTER
        if x and x + width > WIDTH:
            x, y = 0.0, y + _ROW
        colour = _colour(index)
        parts.append(
            f'<line class="line {colour}" x1="{_n(x)}" x2="{_n(x + 18)}" y1="{y + 8}"'
            f' y2="{y + 8}"/>'
            f'<path class="fill {colour}" d="{_shape(index, x + 9, y + 8)}"/>'
            f'<text x="{_n(x + 23)}" y="{y + 12}">{_text(words)}</text>'
        )
        x += width + 8
    return parts, y + _ROW + 6


def _hatched(name: str, share: Share, box: tuple[float, float, float, float]) -> str:
    x, y, width, height = box
    if not share.guess:
        return ""
    return (
        f'<rect fill="url(#{name}-hatch)" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}"'
        f' height="{_n(height)}"/>'
    )


def _svg(name: str, title: str, about: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(height)}" role="img" id="{name}"'
        f' aria-labelledby="{name}-title {name}-about"><title id="{name}-title">{_text(title)}'
        f'</title><desc id="{name}-about">{_text(about)}</desc>{"".join(body)}</svg>'
    )


def _step(span: float) -> float:
    """The round number of which *span* holds three to six."""
    rough = max(span / 5, 1 / _HIGHEST)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.999)


def _ceiling(high: float) -> float:
    """The round number that a scale from zero to *high* ends with."""
    if high <= 0:
        return 1.0
    step = _step(high)
    return math.ceil(high / step) * step


def _clipped(text: str, most: int) -> str:
    return _text(text if len(text) <= most else text[: most - 1] + "…")


def _text(text: str) -> str:
    return escape(plain(text))


def plain(text: str) -> str:
    """Return *text* with ? for each sign that shows nothing or turns others around."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
