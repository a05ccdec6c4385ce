"""An engine, and an open door to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.servers import FLAGS, stand_in
from tests.guard.door import Door, door

ARGV = ("vllm", "serve", "moonshotai/Kimi-K2.7-Code", *FLAGS)


@pytest.fixture(scope="package")
def engine() -> Iterator[str]:
    """The stand-in, as vLLM."""
    with stand_in(ARGV) as endpoint:
        yield f"http://127.0.0.1:{endpoint.port}"


@pytest.fixture(scope="package")
def open_door(engine: str) -> Iterator[Door]:
    """A guard without keys."""
    with door(engine) as found:
        yield found
