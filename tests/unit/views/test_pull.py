"""Progress at every width: what is left to wait is always told, and no line is too long."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kimideploy.views.pull import Lines, _bars, shortened
from kimideploy.weights.events import Adopted, InFlight, Moved

NAME = "model-00012-of-000064.safetensors"
MOVED = Moved(
    stage="fetching",
    done=123_400_000_000,
    total=595_145_000_000,
    files_done=12,
    files=75,
    rate=102.3e6,
    eta=4611.0,
    active=tuple(
        InFlight(path=NAME, done=4_000_000_000, total=9_810_000_000, rate=12.8e6) for _ in range(9)
    ),
)


def lines(width: int, event: Moved = MOVED) -> list[str]:
    """Return what stands on a terminal of *width* columns."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as shown:
        console.print(_bars(event, width))
    return [line.rstrip() for line in shown.get().splitlines()]


@pytest.mark.parametrize("width", [40, 50, 60, 65, 66, 72, 80, 100, 200])
def test_what_is_left_is_always_told(width: int) -> None:
    """However narrow it is, the time that is left stands there, and no line is cut or folded."""
    shown = lines(width)

    assert 10 == len(shown)
    assert max(map(len, shown)) <= width
    assert "1 h 16 min left" in shown[-1]
    assert "12.8 MB/s" in shown[0]
    assert "and 1 more" in shown[-2]


def test_at_eighty_columns() -> None:
    """On the usual terminal all of it is told, with whole names."""
    shown = lines(80)

    assert NAME in shown[0]
    assert "123.4 GB of 595.1 GB  12/75 files  102.3 MB/s  1 h 16 min left" in shown[-1]


@pytest.mark.parametrize(
    ("room", "said"),
    [(34, NAME), (33, NAME), (32, "model-00012-of-000064"), (16, "…00012-of-000064")],
)
def test_names_keep_their_number(room: int, said: str) -> None:
    """Of a name that is too long the ending goes first; the shard's number stays."""
    assert said == shortened(NAME, room)


def test_nothing_known_yet() -> None:
    """Before the first byte there is no rate and no time, and no error either."""
    fresh = Moved(stage="fetching", done=0, total=0, files_done=0, files=0)

    assert "0 B of 0 B  0/0 files" in lines(80, fresh)[-1]


def test_where_files_come_from_is_said_once() -> None:
    """Sixty files of one folder name it once, and then themselves."""
    console = Console(file=io.StringIO(), width=80)
    view = Lines(console, console)
    for number in range(3):
        view.take(
            Adopted(path=f"{number}.gguf", bytes=5, how="hard link", of=f"/srv/{number}.gguf")
        )
    text = console.file.getvalue()  # type: ignore[attr-defined]

    assert 1 == text.count("taking over from /srv")
    assert "2.gguf  5 B, hard link" in text
