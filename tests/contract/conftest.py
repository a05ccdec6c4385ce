"""The real vLLM, started once for all that is asked of it here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.servers import Endpoint, real_vllm


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The real vLLM, CPU build, on the nano Kimi."""
    with real_vllm(tmp_path_factory.mktemp("real")) as endpoint:
        yield endpoint
