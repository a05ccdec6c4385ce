"""The stand-in knows exactly the flags the engine knows."""

from __future__ import annotations

import pytest

from kimideploy.rehearsal.argv import VERSIONS, Refused, read
from tests.contract.make_flags import path, text


@pytest.mark.parametrize("engine", sorted(VERSIONS))
def test_flags_are_the_engines_own(engine: str) -> None:
    """Each list of flags is what the engine's own parser says; make_flags writes it anew."""
    assert text(engine) == path(engine).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["vllm", "serve", "m", "--bogus"], 2, "unrecognized arguments: --bogus"),
        (["vllm", "serve", "m", "--port"], 2, "expected one argument"),
        (["sglang", "serve", "--model-path", "m", "--no-such", "8"], 2, "unrecognized"),
        (["sglang", "serve"], 2, "required"),
        (["llama-server", "--model", "m", "--bogus"], 1, "invalid argument: --bogus"),
        (["python3", "-m", "http.server"], 2, "no engine"),
    ],
)
def test_refused(argv: list[str], code: int, said: str) -> None:
    """What the engine would refuse is refused in its words and with its exit code."""
    with pytest.raises(Refused) as refused:
        read(argv)

    assert refused.value.code == code
    assert said in refused.value.message
