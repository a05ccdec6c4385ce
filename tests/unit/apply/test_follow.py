"""The log: lines out of whatever an engine writes, progress, news, causes of death."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kimideploy.apply.events import Progress
from kimideploy.apply.follow import LONGEST, TAIL, Lines, Story
from kimideploy.catalog.failures import Failure
from kimideploy.catalog.types import LogPatterns, LogStage
from tests.unit.engines.plans import CATALOG

PATTERNS = LogPatterns(
    source="test",
    stages=(
        LogStage(stage="loading", pattern=r"shards: .* (?P<done>\d+)/(?P<total>\d+)"),
        LogStage(stage="compiling", pattern="compile"),
    ),
)
KNOWN = tuple(
    Failure(id=name, of=("any",), pattern=pattern, cause="why", fix="how", link="", where="")
    for name, pattern in (("oom", "out of memory"), ("dead", "engine died"))
)


def _lines(*chunks: bytes) -> list[str]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)]


def _read(story: Story, *lines: str) -> list[Progress | None]:
    return [story.read(line, float(second)) for second, line in enumerate(lines)]


def test_a_redrawn_bar_is_a_line_each_time() -> None:
    """Carriage returns end a line as well as newlines do."""
    assert ["1/3", "2/3", "3/3", "done"] == _lines(b"\r1/3\r2/3\r3/3\r\ndone\n")


def test_a_line_may_come_in_pieces() -> None:
    """A multi-byte letter cut in two is one letter again."""
    assert ["Größe 1"] == _lines(b"Gr\xc3", b"\xb6\xc3\x9fe 1", b"\n")


def test_colours_and_control_characters_go() -> None:
    """A log can't speak to the operator's terminal."""
    raw = b"\x1b[1;32mgreen\x1b[0m \x1b]0;title\x07\x1b[2Jtext\x00\x7f\n"

    assert ["green text"] == _lines(raw)


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """Invalid UTF-8 is no reason to lose the line."""
    assert ["a\ufffdb"] == _lines(b"a\xffb\n")


def test_a_line_without_an_end_does_not_grow() -> None:
    """Ten megabytes on one line are cut, and the next line is whole."""
    assert [LONGEST, 4] == [len(x) for x in _lines(b"x" * 10_000_000, b"x" * 99 + b"\nnext\n")]


def test_the_unfinished_line_can_be_seen() -> None:
    """A bar that waits at 3/4 has not ended its line."""
    lines = Lines()

    assert [] == list(lines.feed(b"shards: a 3/4"))
    assert "shards: a 3/4" == lines.rest


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_where_the_chunks_end_does_not_matter(chunks: list[bytes]) -> None:
    """The same bytes make the same lines, however they arrive, and none holds a control sign."""
    whole = b"".join(chunks) + b"\n"

    assert _lines(whole) == _lines(*chunks, b"\n")
    assert all(sign >= " " or sign == "\t" for line in _lines(whole) for sign in line)


def test_progress_has_a_rate_and_an_end() -> None:
    """Two shards in two seconds of ten: one a second, eight seconds left."""
    story = Story(PATTERNS, KNOWN)

    told = _read(story, "shards: x 0/10", "shards: x 1/10", "shards: x 2/10")

    assert Progress(stage="loading", done=2, total=10, rate=1.0, eta=8.0) == told[2]


def test_the_first_number_tells_no_rate() -> None:
    """Where it began is not known to have taken any time."""
    assert [Progress(stage="loading", done=5, total=10)] == _read(
        Story(PATTERNS, KNOWN), "shards: x 5/10"
    )


def test_a_bar_that_begins_again_has_a_new_rate() -> None:
    """A second bar of the same stage is not measured from the first one's start."""
    story = Story(PATTERNS, KNOWN)

    told = _read(story, "shards: x 9/10", "shards: x 0/10", "shards: x 2/10")

    assert Progress(stage="loading", done=2, total=10, rate=2.0, eta=4.0) == told[2]


def test_the_same_number_again_is_no_progress() -> None:
    """Eight ranks that print the same bar are one bar."""
    assert [None] == _read(Story(PATTERNS, KNOWN), "shards: x 1/4", "shards: x 1/4")[1:]


def test_a_stage_is_told_once() -> None:
    """Compiling is entered, not entered at each of its lines."""
    told = _read(Story(PATTERNS, KNOWN), "shards: x 4/4", "compile a", "compile b")

    assert [Progress(stage="compiling"), None] == told[1:]


def test_numbers_that_are_none_are_left_out() -> None:
    """A number of twenty digits is no count."""
    line = f"shards: x {'9' * 20}/4"

    assert [Progress(stage="loading")] == _read(Story(PATTERNS, KNOWN), line)


def test_only_new_words_are_news() -> None:
    """The same sentence with other numbers is what a hanging engine says."""
    story = Story(PATTERNS, KNOWN)

    _read(story, *(f"waiting for 1 engine since {n} s" for n in range(50)))

    assert 1 == story.moved


def test_each_shard_is_news() -> None:
    """A slow load that gets on is alive."""
    story = Story(PATTERNS, KNOWN)

    _read(story, *(f"shards: x {n}/50" for n in range(50)))

    assert 51 == story.moved


def test_the_cause_named_first_in_the_profile_wins() -> None:
    """The general failure that follows a special one does not hide it, nor does it come first."""
    first, second = Story(PATTERNS, KNOWN), Story(PATTERNS, KNOWN)

    _read(first, "out of memory", "engine died")
    _read(second, "engine died", "out of memory")

    assert ["oom", "oom"] == [s.failure.id for s in (first, second) if s.failure is not None]


def test_a_calm_log_has_no_cause() -> None:
    """Nothing is made up."""
    story = Story(PATTERNS, KNOWN)

    _read(story, "all is well")

    assert None is story.failure


def test_only_the_last_lines_are_kept() -> None:
    """A log of any length takes the same memory."""
    story = Story(PATTERNS, KNOWN)

    _read(story, *(f"line {'x' * n}" for n in range(10 * TAIL)))

    assert TAIL == len(story.tail)
    assert f"line {'x' * (10 * TAIL - 1)}" == story.tail[-1]


def test_a_redrawn_bar_leaves_one_line() -> None:
    """What came before the bar is still there when the engine dies."""
    story = Story(PATTERNS, KNOWN)

    _read(story, "the reason", *(f"shards: x {n}/99" for n in range(99)), "the end")

    assert ["the reason", "shards: x 98/99", "the end"] == list(story.tail)


def test_shards_of_vllm_are_understood() -> None:
    """vLLM's own bar, as a worker of eight prints it."""
    story = Story(CATALOG.engines["vllm"].log)
    line = (
        "(Worker_TP0 pid=4711) Loading safetensors checkpoint shards:  12% Completed"
        " | 8/64 [01:38<11:31, 12.33s/it]"
    )

    assert [Progress(stage="loading weights", done=8, total=64)] == _read(story, line)
