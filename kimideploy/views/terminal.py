"""What a stream can show, and styled text without Rich, for what must start fast."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal, TextIO

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan", "blue", "magenta"]
_CODES: dict[Style, str] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_PIPE_WIDTH, _NARROWEST, _WIDEST = 80, 60, 120
#: what ASCII can't say is said in other letters, never left out
_ASCII = str.maketrans({"×": "x", "·": "-", "…": "...", "–": "-", "—": "-", "≥": ">=", "≤": "<="})


@dataclass(frozen=True, slots=True)
class Terminal:
    """Columns, and whether colours and characters beyond ASCII arrive as they should."""

    width: int = _PIPE_WIDTH
    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, *styles: Style) -> str:
        """Return *text* in *styles*, or as it is where there is no colour."""
        if not self.colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def wrapped(self, text: str, *, first: str = "  ", rest: str | None = None) -> list[str]:
        """Return *text* in lines of this width, after *first* and then *rest*."""
        # Why before: … is wider in ASCII.
        lines = wrap(
            tame(text if self.unicode else text.translate(_ASCII)),
            self.width,
            initial_indent=first,
            subsequent_indent=rest if rest is not None else " " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines or [first]

    def shown(self, lines: list[str]) -> str:
        """Return *lines* as one text, in letters that this terminal can show."""
        text = "\n".join(lines) + "\n"
        if self.unicode:
            return text
        return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def tame(text: str) -> str:
    """Return *text* with a ? for each sign that shows nothing: files may steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def terminal(stream: TextIO) -> Terminal:
    """Return what *stream* can show; NO_COLOR, FORCE_COLOR and COLUMNS are heeded."""
    is_terminal = stream.isatty()
    columns = os.environ.get("COLUMNS", "")
    width = shutil.get_terminal_size().columns if is_terminal or columns.isdigit() else _PIPE_WIDTH
    colour = is_terminal and os.environ.get("TERM") != "dumb"
    if os.environ.get("NO_COLOR"):
        colour = False
    elif os.environ.get("FORCE_COLOR"):
        colour = True
    encoding = (stream.encoding or "ascii").lower().replace("-", "").replace("_", "")
    return Terminal(
        width=min(max(width, _NARROWEST), _WIDEST),
        colour=colour,
        unicode=encoding.startswith("utf"),
    )
