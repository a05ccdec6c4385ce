"""The page about middleware is what real middleware does."""

from __future__ import annotations

from tests.middleware.page import PAGE, text


def test_the_page_is_what_the_runs_say() -> None:
    """`python -m tests.middleware.page` writes it anew."""
    assert text() == PAGE.read_text(encoding="utf-8")
