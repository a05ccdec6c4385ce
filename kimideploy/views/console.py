"""The two consoles: `out` for data, `err` for talk. 80 columns in a pipe, no colour with NO_COLOR."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False, soft_wrap=False)
