"""A headless Chromium of the system, driven for real."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


# Why for a module: Playwright holds an event loop while it lives, and other tests run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the browser; without one it is a failure under CI and a skip elsewhere."""
    program = shutil.which("chromium")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium is not installed")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
