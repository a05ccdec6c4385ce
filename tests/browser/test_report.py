"""The report in a real browser: what it shows, what it asks for, what it lets happen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from kimideploy.cli.report import LARGEST, command
from kimideploy.planning.saved import decision_from
from kimideploy.planning.types import Decision, NoFit, Plan, encode
from kimideploy.views.report import page as page_of
from tests.cli.run import run

GOLDEN = Path(__file__).parents[1] / "golden"
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 780}
CHARTS = ("gpu-memory", "kv-capacity", "speed-per-user", "speed-total", "cost")
#: what ends every kind of context a text can stand in, and then acts
HOSTILE = (
    "\"'></title></style></pre></svg></desc><script>document.title='owned'</script>"
    "<img src='http://127.0.0.1:9/x' onerror=\"document.title='owned'\">{{ 7 * 7 }}\u202e"
)
#: words of the file that can't be anything else
FIXED = {"decision", "schema", "engine", "format", "kv_dtype", "goal", "verdict"}

Opened = Callable[..., Page]


def saved(name: str) -> Decision:
    """Return the decision of a golden case."""
    text = (GOLDEN / name / "plan.json").read_text(encoding="utf-8")
    return decision_from(text, name=name)


def planned() -> Plan:
    """Return the plan of eight H200, as the command writes it."""
    found = decision_from(run("plan", "--hardware", "8xH200", "--json").stdout, name="plan")
    assert isinstance(found, Plan)
    return found


def html(decision: Decision) -> str:
    """Return the page as the command makes it."""
    path = Path("decision.json")
    path.write_bytes(encode(decision))
    result = run("report", str(path))
    assert (0, "") == (result.exit_code, result.stderr)
    return result.stdout


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Yield a way to open a page that must make no noise and no request but for itself."""
    noise: list[str] = []
    contexts = []

    def open_(text: str, *, viewport: Any = DESK, scheme: Any = "light") -> Page:
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8", newline="")
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("dialog", lambda dialog: noise.append(dialog.message))
        page.on(
            "request",
            lambda asked: noise.append(asked.url) if asked.url != file.as_uri() else None,
        )
        page.goto(file.as_uri(), wait_until="load")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [] == noise


def test_charts_are_there_with_every_point(opened: Opened) -> None:
    """Each chart takes room, and has one mark for each share, length and prediction."""
    plan = planned()
    assert plan.speed is not None

    page = opened(html(plan))

    boxes = [page.locator(f"svg#{name}").bounding_box() for name in CHARTS]
    assert all(box is not None and box["width"] > 300 and box["height"] > 150 for box in boxes)
    counted = {name: page.locator(f"#{name} .point, #{name} .share").count() for name in CHARTS}
    assert {
        "gpu-memory": len(plan.fit.shares),
        "kv-capacity": 7,
        "speed-per-user": len(plan.speed.points),
        "speed-total": len(plan.speed.points),
        "cost": 2 * 25,
    } == counted
    contexts = len({point.context for point in plan.speed.points})
    assert contexts == page.locator("#speed-total polyline").count()


def test_chart_has_words_and_a_table(opened: Opened) -> None:
    """A chart is an image with a title and a description, and its numbers are a table, too."""
    plan = planned()
    assert plan.speed is not None

    page = opened(html(plan))

    for name in CHARTS:
        chart = page.locator(f"svg#{name}")
        assert "img" == chart.get_attribute("role")
        words = (chart.get_attribute("aria-labelledby") or "").split()
        assert all(page.locator(f"[id='{word}']").text_content() for word in words)
        assert 2 == len(words)
        assert page.locator(f"figure:has(svg#{name}) details table tbody tr").count() > 0
    rows = page.locator("figure:has(#speed-total) details tbody tr")
    assert len(plan.speed.points) == rows.count()
    shares = page.locator("figure:has(#gpu-memory) details tbody tr").all_text_contents()
    assert [share.cause for share in plan.fit.shares] == [
        share.cause
        for share, row in zip(plan.fit.shares, shares, strict=True)
        if row.startswith(share.cause) and f"{share.bytes:,}" in row
    ]


def test_guesses_are_hatched(opened: Opened) -> None:
    """A share that is a guess is hatched in the bar and in its row, others are not."""
    plan = planned()
    guesses = sum(share.guess for share in plan.fit.shares)

    page = opened(html(plan))

    assert 0 < guesses
    assert 2 * guesses == page.locator("#gpu-memory rect[fill^='url(#gpu-memory-hatch']").count()


@pytest.mark.parametrize(
    "name",
    ["h200x8", "h100-80x8-two-nodes", "rtx4090x1-384g", "cpu-768g", "a100-80x8-int4", "gb10x1"],
)
def test_phone_has_no_sideways_scroll(opened: Opened, name: str) -> None:
    """On 360 pixels nothing but tables and commands scrolls, and those do it inside."""
    page = opened(html(saved(name)), viewport=PHONE)

    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")

    assert 360 == page.evaluate("document.documentElement.scrollWidth")
    beyond = """[...document.querySelectorAll('body *')].filter(one =>
        !one.closest('.wide, pre, svg') && one.getBoundingClientRect().right > 360.5
        ).map(one => one.outerHTML.slice(0, 80))"""
    assert [] == page.evaluate(beyond)


def test_phone_letters_are_large_enough(opened: Opened) -> None:
    """On a phone the letters of a chart are at least ten pixels high."""
    page = opened(html(planned()), viewport=PHONE)

    sizes = page.evaluate(
        """[...document.querySelectorAll('svg text')].map(one => {
            const svg = one.ownerSVGElement
            return parseFloat(getComputedStyle(one).fontSize)
                * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width })"""
    )

    assert 10 <= min(sizes)


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_words_of_a_chart_do_not_meet(opened: Opened, viewport: dict[str, int]) -> None:
    """No text of a chart lies over another one or outside its image."""
    page = opened(html(planned()), viewport=viewport)

    met = page.evaluate(
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect()
            const all = [...svg.querySelectorAll('text')].map(
                one => [one.textContent, one.getBoundingClientRect()])
            const out = all.filter(([, a]) => a.left < frame.left - 2 || a.right > frame.right + 2)
            const over = all.flatMap(([name, a], i) => all.slice(i + 1).filter(([, b]) =>
                a.left < b.right - 1 && b.left < a.right - 1 &&
                a.top < b.bottom - 4 && b.top < a.bottom - 4).map(([other]) => [name, other]))
            return [...out.map(([name]) => [name]), ...over] })"""
    )

    assert [] == met


def test_dark_is_dark(opened: Opened) -> None:
    """The page's background follows the reader's scheme."""
    text = html(planned())
    background = "getComputedStyle(document.body).backgroundColor"

    light, dark = (
        sum(map(int, opened(text, scheme=scheme).evaluate(background)[4:-1].split(",")))
        for scheme in ("light", "dark")
    )

    assert dark < 3 * 64 < 3 * 192 < light


CONTRAST = """() => {
    const channel = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => channel(v / 255))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b }
    const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p)
        return (x + 0.05) / (y + 0.05) }
    const behind = one => { for (; one; one = one.parentElement) {
        const found = getComputedStyle(one).backgroundColor
        if (found !== 'rgba(0, 0, 0, 0)') return found }
        return 'rgb(255, 255, 255)' }
    const found = []
    for (const one of document.querySelectorAll('body *')) {
        const style = getComputedStyle(one), svg = one.closest('svg')
        const says = [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim())
        if (says && !['title', 'desc'].includes(one.tagName)) found.push(['text', one.textContent,
            ratio(svg ? style.fill : style.color, behind(one)), 4.5])
        if (svg && one.matches('.point, .share .fill:not(.idle)'))
            found.push(['mark', one.className.baseVal, ratio(style.fill, behind(svg)), 3])
        if (svg && one.matches('polyline'))
            found.push(['line', one.className.baseVal, ratio(style.stroke, behind(svg)), 3])
    }
    return [found.length, found.filter(([, , has, needs]) => has < needs)]
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["h200x8", "a100-80x8-int4"])
def test_contrast_is_enough(opened: Opened, name: str, scheme: str) -> None:
    """In both schemes every text has a contrast of 4.5 and every mark one of 3 (WCAG AA)."""
    decision = planned() if name == "h200x8" else saved(name)

    count, poor = opened(html(decision), scheme=scheme).evaluate(CONTRAST)

    assert count > 40
    assert [] == poor


def test_print(opened: Opened) -> None:
    """On paper the page is white whatever the scheme, and the tables behind the charts are open."""
    page = opened(html(planned()), scheme="dark")
    rows = page.locator("details tbody tr")
    assert not rows.first.is_visible()

    page.emulate_media(media="print")

    box = rows.first.bounding_box()
    assert box is not None
    assert box["height"] > 5
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert "rgb(255, 255, 255)" == background
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") > 1


def test_ids_are_unique(opened: Opened) -> None:
    """No two elements of the page have the same name."""
    page = opened(html(saved("rtx4090x1-384g")))

    names = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")

    assert "host-memory" in names
    assert sorted(set(names)) == sorted(names)


def test_headings_are_in_order(opened: Opened) -> None:
    """There is one h1, no level is left out, and the language is said."""
    page = opened(html(planned()))

    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(one => +one.tagName[1])"
    )

    assert 1 == levels[0]
    assert 1 == levels.count(1)
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert "en" == page.locator("html").get_attribute("lang")


def test_command_is_exact_and_selected_by_a_click(opened: Opened) -> None:
    """The text of the page is the command to the letter, and one click selects all of it."""
    plan = planned()
    (launch,) = plan.launches
    odd = msgspec.structs.replace(launch, argv=(*launch.argv, "--odd", "a\tb  c\r\nd <&> 'e'"))
    text = page_of(msgspec.structs.replace(plan, launches=(odd,)), commands=[command(odd)])

    page = opened(text)
    page.locator("pre code").click()

    assert command(odd) == page.locator("pre code").text_content()
    chosen = page.evaluate("getSelection().toString()")
    assert command(launch).split() == chosen.split()[: len(command(launch).split())]
    assert "<&>" in chosen


def hostile(value: Any, key: str = "") -> Any:
    """Return *value* with every text in it that may be anything replaced."""
    if isinstance(value, dict):
        return {name: hostile(item, name) for name, item in value.items()}
    if isinstance(value, list):
        if key == "env":
            return [[name, HOSTILE] for name, _ in value]
        return [hostile(item, key) for item in value]
    if key in {"link", "url"}:
        return "javascript:document.title='owned'"
    return HOSTILE if isinstance(value, str) and key not in FIXED else value


@pytest.mark.parametrize("name", ["h200x8", "rtx4090x1-384g", "h100-80x8-two-nodes", "gb10x1"])
def test_hostile_words_are_words(opened: Opened, name: str) -> None:
    """A plan file whose every text is an attack is shown, and nothing of it acts."""
    decision = planned() if name == "h200x8" else saved(name)
    kind = type(decision)
    attack = msgspec.convert(hostile(msgspec.to_builtins(decision)), kind)
    assert isinstance(attack, (Plan, NoFit))

    page = opened(html(attack))

    assert 0 == page.locator("script, img, iframe, object, [onerror], [onclick]").count()
    assert "<script>" in page.title()
    assert "{{ 7 * 7 }}" in (page.locator("h1").text_content() or "")
    assert "\u202e" not in (page.locator("header").text_content() or "")
    hrefs = [one.get_attribute("href") for one in page.locator("a").all()]
    assert [] == [href for href in hrefs if not str(href).startswith(("https://", "http://"))]
    assert [] == page.evaluate("[...document.querySelectorAll('*')].filter(e => e.style?.length)")


@contextmanager
def served(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of *text* on a real server, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = text.encode() if self.path == "/plan.html" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/plan.html", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_policy_holds_what_escaping_let_through(browser: Browser) -> None:
    """Even markup that got into the page runs no script, brings no style and asks for nothing."""
    attack = (
        "<script>document.title='owned'</script><style>h1 { display: none }</style>"
        "<img src='/x' onerror=\"document.title='owned'\"><iframe src='/y'></iframe>"
        "<link rel=stylesheet href='/z'><form action='/f'></form>"
    )
    text = html(planned()).replace("<main>", f"<main>{attack}")
    with served(text) as (address, asked):
        page = browser.new_page()
        page.goto(address, wait_until="networkidle")

        assert 1 == page.locator("main > script").count()
        assert "owned" != page.title()
        assert page.locator("h1").is_visible()
        page.close()

    assert ["/plan.html"] == asked


def test_server_is_asked_once(browser: Browser) -> None:
    """A page on a server is one request, without a second one for an icon."""
    with served(html(planned())) as (address, asked):
        page = browser.new_page()
        page.goto(address, wait_until="networkidle")
        page.close()

    assert ["/plan.html"] == asked


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/plan.json")), ids=lambda p: p.parent.name)
def test_every_golden_plan_is_a_small_page(path: Path) -> None:
    """Each decision we know of becomes a page, far below a megabyte."""
    text = html(decision_from(path.read_text(encoding="utf-8"), name=path.name))

    assert len(text.encode()) < LARGEST // 4
