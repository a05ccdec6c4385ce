"""How speed is shown: the lines of a plan, and the tables over users and contexts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kimideploy.planning.estimates import Estimate, Nearest, Range, Speed
from kimideploy.views.speed import curve, lines, rate, size, span, users
from kimideploy.views.terminal import Terminal

PLAIN = Terminal(width=80)


def bar(value: float) -> Range:
    """Return a prediction with a factor of 2 on either side."""
    return Range(value / 2, value, value * 2)


def point(count: int, context: int, each: float) -> Estimate:
    """Return the prediction for *count* users."""
    return Estimate(count, context, bar(each), bar(each * count), "experts")


SPEED = Speed(
    points=(
        point(1, 2048, 100),
        point(2, 2048, 90),
        point(4, 2048, 80),
        point(1, 32_768, 70),
        point(2, 32_768, 60),
        point(3, 32_768, 50),
    ),
    prefill=bar(20_000),
    prompt=8192,
    ttft=bar(0.446),
    load=bar(360),
    load_network=bar(660),
    basis="fitted to 3 measurements",
    nearest=Nearest("T1", "K2 on 8×H200", 365.0, "https://example.org/x", "2026-05", 334.0),
)


def test_lines_carry_every_bar() -> None:
    """One user, the most that fit, prompts, first token and loading, each with its range."""
    text = " ".join(" ".join(lines(SPEED, PLAIN)).split())

    assert "1 user 70 (35 … 140) tok/s, 32k tokens deep" in text
    assert "3 users 50 (25 … 100) tok/s each, 150 (75 … 300) in all" in text
    assert "20,000 (10,000 … 40,000) tok/s read" in text
    assert "0.446 (0.223 … 0.892) s to the first token of 8,192" in text
    assert "6 (3 … 12) min from a local disk, 11 (5.5 … 22) over a network" in text
    assert "Basis fitted to 3 measurements" in text


def test_nearest_measurement_stands_beside() -> None:
    """What was measured comes with what is predicted here for its load, and its address."""
    text = "\n".join(lines(SPEED, PLAIN))

    assert "365 tok/s over all users, where 334 are predicted here: K2 on" in text
    assert text.endswith("https://example.org/x")


def test_unknown_speed_is_said() -> None:
    """A GPU nobody knows the speed of has a sentence, not a gap."""
    assert "nothing is known of this GPU's speed" in "\n".join(lines(None, PLAIN))


def test_curve_has_a_cell_for_each_load() -> None:
    """A row for 1, 2 and 4 users and one for the most; what the cache does not hold is full."""
    rows = [line.split() for line in curve(SPEED, 262_144, PLAIN).splitlines()]

    assert ["1", "100", "70"] in rows
    assert ["4", "80", "full"] in rows
    assert ["4", "320", "full"] in rows
    assert ["most", "4:", "80", "3:", "50"] in rows
    assert not [row for row in rows if row[:1] == ["3"]]


def test_curve_says_its_error_once() -> None:
    """The factor that holds for every cell is under the tables, with its basis."""
    text = " ".join(curve(SPEED, 262_144, PLAIN).split())

    assert 1 == text.count("fall between these numbers / 2 and × 2; fitted to 3 measurements")
    assert "A request may be 262,144 tokens long." in text


@pytest.mark.parametrize("unicode", [True, False])
def test_widths(unicode: bool) -> None:
    """No line is wider than 80 columns, in ASCII neither."""
    terminal = Terminal(width=80, unicode=unicode)
    text = curve(SPEED, 262_144, terminal) + terminal.shown(lines(SPEED, terminal))

    assert max(map(len, text.splitlines())) <= 80
    assert unicode or text.isascii()


def test_no_points_no_table() -> None:
    """A plan whose cache holds no load that is predicted says so."""
    assert "no speed is predicted" in curve(replace(SPEED, points=()), 4096, PLAIN)


@pytest.mark.parametrize(
    ("value", "said"), [(0.4462, "0.446"), (27.51, "27.5"), (604.6, "605"), (23_680, "23,700")]
)
def test_three_digits(value: float, said: str) -> None:
    """Predictions are told in three digits."""
    assert said == rate(value)


def test_words() -> None:
    """Sizes and counts read as people write them."""
    assert ("32k", "1 user", "2 users") == (size(32_768), users(1), users(2))
    assert "2 (1 … 4)" == span(bar(2))
