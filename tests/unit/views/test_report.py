"""The report and its charts, against values made by hand; tests/browser/ has the browser's part."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.planning.estimates import Estimate, Nearest, Range, Speed
from kimideploy.planning.types import Notice, Plan, Rejection, Share
from kimideploy.quantities import GIB
from kimideploy.views.charts import Axis, Mark, Point, Series, curves, number, stack
from kimideploy.views.charts import Share as Part
from kimideploy.views.report import MOST_REJECTED, page
from tests.unit.views.test_plan import CANDIDATE, FIT, NO_FIT, PLAN, REJECTION

SVG = "{http://www.w3.org/2000/svg}"


def about(value: float) -> Range:
    """Return a range around *value*."""
    return Range(value * 0.8, value, value * 1.25)


SPEED = Speed(
    points=tuple(
        Estimate(users, context, about(60 / users), about(60), "latency")
        for context, most in ((8192, 16), (131_072, 2))
        for users in (1, 2, 4, 8, 16)
        if users <= most
    ),
    prefill=about(7000),
    prompt=8192,
    ttft=about(1.2),
    load=about(420),
    load_network=about(800),
    basis="fitted to nothing",
    nearest=Nearest("S1", "another machine", 55.5, "https://example.org/a?b=1&c=2", "2026-08-01"),
)
FAST = msgspec.structs.replace(PLAN, speed=SPEED)


def drawn(text: str) -> ET.Element:
    """Return the one SVG in *text*, parsed."""
    (svg,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return ET.fromstring(svg)


def shares(svg: ET.Element) -> list[tuple[float, float]]:
    """Return where each part of a bar begins, and how wide it is."""
    parts = [part for part in svg.iter("g") if part.get("class") == "share"]
    bars = [part.find("rect") for part in parts]
    return [
        (float(bar.get("x", "")), float(bar.get("width", ""))) for bar in bars if bar is not None
    ]


def test_parts_of_a_bar_meet() -> None:
    """Each part begins where the one before ends, and together they are the whole."""
    parts = [Part("a", 50, "50"), Part("b", 30, "30"), Part("c", 20, "20", idle=True)]

    found = shares(ET.fromstring(stack("x", "t", "d", shares=parts, whole=100, room="100")))

    assert [(0, 210), (210, 126), (336, 84)] == found


def test_what_does_not_fit_runs_past_the_line() -> None:
    """A bar larger than its room is drawn whole, with the line where the room ends."""
    svg = ET.fromstring(stack("x", "t", "d", shares=[Part("a", 200, "")], whole=100, room="100"))

    (line,) = (one for one in svg.iter("line") if one.get("class") == "limit")
    assert [(0, 420)] == shares(svg)
    assert "210" == line.get("x1")
    assert "200.0%" in "".join(svg.itertext())


def places(svg: ET.Element) -> list[tuple[float, float]]:
    """Return where the line of a chart goes."""
    (line,) = svg.iter("polyline")
    pairs = (pair.split(",") for pair in (line.get("points") or "").split())
    return [(float(x), float(y)) for x, y in pairs]


def one_line(*points: tuple[float, float], log: bool = False) -> ET.Element:
    """Return the chart of one line."""
    series = Series("a", tuple(Point(x, y, y, y, "") for x, y in points))
    axes = Axis("x", log=log), Axis("y", log=log)
    return ET.fromstring(curves("x", "t", "d", series=[series], x=axes[0], y=axes[1]))


def test_equal_steps_are_equally_far() -> None:
    """A straight line is straight on linear axes, a power on logarithmic ones, and up is more."""
    for svg in (
        one_line((0, 0), (1, 10), (2, 20)),
        one_line((1, 1), (10, 10), (100, 100), log=True),
    ):
        (x0, y0), (x1, y1), (x2, y2) = places(svg)
        assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
        assert y1 - y0 == pytest.approx(y2 - y1, abs=0.02)
        assert x0 < x1 < x2
        assert y0 > y1 > y2


def test_band_is_from_low_to_high() -> None:
    """The band of a line goes along its highs and back along its lows."""
    points = (Point(1, 5, 2.5, 7.5, ""), Point(2, 5, 2.5, 7.5, ""))
    svg = ET.fromstring(
        curves("x", "t", "d", series=[Series("a", points)], x=Axis("x"), y=Axis("y"))
    )

    (band,) = svg.iter("polygon")
    (left, middle), (right, _) = places(svg)
    corners = [tuple(map(float, pair.split(","))) for pair in (band.get("points") or "").split()]
    assert [left, right, right, left] == [x for x, _ in corners]
    assert corners[0][1] == corners[1][1] < middle < corners[2][1] == corners[3][1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.446, "0.446"), (64, "64"), (5163.6, "5,164"), (23_700, "23.7k"), (1e6, "1M")],
)
def test_number(value: float, expected: str) -> None:
    """A number is short, and keeps three digits."""
    assert expected == number(value)


anything = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e308)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.tuples(anything, anything, anything, anything), min_size=1, max_size=5),
    log=st.booleans(),
    label=st.text(max_size=50),
)
def test_any_numbers_and_words_are_a_picture(
    values: list[tuple[float, float, float, float]], log: bool, label: str
) -> None:
    """Whatever a file says, the chart is well-formed and everything is drawn within its image."""
    series = Series(label, tuple(Point(*value, label) for value in values))
    text = curves(
        "x",
        label,
        label,
        series=[series, series],
        x=Axis(label, log=log),
        y=Axis(label, log=log),
        marks=[Mark(values[0][0], label)],
    )

    svg = ET.fromstring(text)

    coordinates = " ".join(re.findall(r' (?:x|y|x1|x2|y1|y2|points|d)="([^"]*)"', text))
    assert not re.search("nan|inf|e", coordinates)
    assert 2 * len(values) == sum(one.get("class", "").startswith("point") for one in svg.iter())
    assert all(-20 <= float(one) <= 450 for one in re.findall(r' x[12]?="([^"]*)"', text))


def test_same_plan_same_page() -> None:
    """The page is a function of its arguments, and names the plan by its hash."""
    first, second = (page(FAST, commands=["vllm serve"]) for _ in range(2))

    assert first == second
    assert 1 == first.count(f"sha256:{sha256(msgspec_bytes(FAST)).hexdigest()}")


def msgspec_bytes(plan: Plan) -> bytes:
    """Return the plan's own JSON."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"


def test_page_says_what_the_plan_says() -> None:
    """Headline, memory, speed, command, why, warnings, pins and each rejection are on the page."""
    plan = msgspec.structs.replace(
        FAST,
        warnings=(Notice("unpinned", "no revision is pinned", "https://example.org/why"),),
        alternatives=(CANDIDATE,),
        rejected=(REJECTION,),
    )

    text = page(plan, commands=["vllm serve --port 8000"])

    for part in (
        "<h1>kimi-k2.7-code on 8×h200</h1>",
        '<p class="verdict yes">It fits</p>',
        "262,144",
        "600,000",
        "100.00 GiB on the card",
        "<dt>One user</dt><dd>60 tok/s</dd><dd>48 to 75, 8,192-token context</dd>",
        "fitted to nothing",
        "another machine: 55.5 tok/s over all users",
        'href="https://example.org/a?b=1&amp;c=2"',
        "<code>vllm serve --port 8000</code>",
        "<li>it is the reference machine</li>",
        "no revision is pinned",
        "moonshotai/Kimi-K2.7-Code at its newest revision",
        "Rejected candidates, 1",
        "the weights are too large (60.00 GiB needed, 40.00 GiB there)",
    ):
        assert part in text


def test_no_speed_is_said() -> None:
    """A plan without a prediction has a sentence where the charts would be."""
    text = page(PLAN, commands=["vllm serve"])

    assert "No speed is predicted for this plan" in text
    assert "speed-total" not in text


def test_no_is_a_page() -> None:
    """A decision that nothing fits says why, what came nearest, and every way out."""
    text = page(NO_FIT)

    for part in (
        '<p class="verdict no">Nothing fits</p>',
        "the weights are too large",
        "Came nearest",
        "two nodes <code>--hardware 2x8xH200</code> <strong>(planned, and it fits)</strong>",
        "<li>--min-context 8192</li>",
        "3.00 GiB are missing for 262,144 tokens.",
    ):
        assert part in text


def test_alike_rejections_share_a_row() -> None:
    """Candidates that one rule rejected with the same words stand in one row, in order."""
    other = msgspec.structs.replace(CANDIDATE, kv_dtype="fp8")
    twins = (REJECTION, msgspec.structs.replace(REJECTION, candidate=other))

    text = page(msgspec.structs.replace(PLAN, rejected=twins), commands=[""])

    assert f"<div>{CANDIDATE.label}</div><div>{other.label}</div>" in text
    assert 1 == text.count("the weights are too large")


def test_most_rejected_are_bounded() -> None:
    """A file with more rejections than anyone reads shows the first, and says so."""
    many = tuple(
        Rejection(CANDIDATE, rule="weights", reason=f"reason {n}") for n in range(MOST_REJECTED + 9)
    )

    text = page(msgspec.structs.replace(PLAN, rejected=many), commands=[""])

    assert f"reason {MOST_REJECTED - 1}<" in text
    assert f"reason {MOST_REJECTED}<" not in text
    assert f"The page shows the first {MOST_REJECTED}" in text


def test_many_shares_are_summed_in_the_bar_and_listed_in_the_table() -> None:
    """A file with very many causes keeps its bar, and every cause is in the table."""
    fit = msgspec.structs.replace(FIT, shares=tuple(Share(f"cause {n}", GIB) for n in range(60)))

    text = page(msgspec.structs.replace(PLAN, fit=fit), commands=[""])

    assert "36 more" in text
    assert all(f"<td>cause {n}</td>" in text for n in range(60))


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "data:text/html,x", "//example.org", "https://", "ftp://x/", ""]
)
def test_only_web_addresses_are_links(link: str) -> None:
    """What is not http or https is shown as words."""
    notice = Notice("x", "careful", link)

    text = page(msgspec.structs.replace(PLAN, warnings=(notice,)), commands=[""])

    assert "<a " not in text


def test_policy_names_the_style_by_its_hash() -> None:
    """The page allows nothing but its own style, whose hash is that of the very bytes."""
    text = page(PLAN, commands=[""])

    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text
    assert "<script" not in text


def test_signs_that_show_nothing_are_question_marks() -> None:
    """A name can't turn the words around it, and what is odd in a command is announced."""
    plan = msgspec.structs.replace(PLAN, served_name="kimi\u202eedoc\x07")

    text = page(plan, commands=["vllm --name 'a\u202eb\rc'"])

    assert "<h1>kimi?edoc? on" in text
    assert "It has signs that show nothing" in text
    assert "a\u202eb&#13;c" in text
    assert "It has signs" not in page(PLAN, commands=["vllm \\\n  --port 1"])


def test_commands_are_one_for_each_launch() -> None:
    """A page with a command missing is never made."""
    with pytest.raises(ValueError, match="shorter"):
        page(PLAN)
