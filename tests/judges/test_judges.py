"""The judges themselves: they accept what the fact sheet's commands say and refuse nonsense."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from tests.judges import JUDGES, Judge
from tests.judges.facts import ACCEPTED, BASE, REFUSED

Asked = Callable[[str], Judge]

# The commands of the fact sheet, sections 2 to 5, as their authors publish them.
RECIPES: dict[str, tuple[str, str]] = {
    "8xH200 with vLLM": (
        "vllm",
        """
        vllm serve moonshotai/Kimi-K2.7-Code --tensor-parallel-size 8 --mm-encoder-tp-mode data
        --trust-remote-code --tool-call-parser kimi_k2 --enable-auto-tool-choice
        --reasoning-parser kimi_k2
        """,
    ),
    "4xB300 with vLLM": (
        "vllm",
        """
        /opt/venv/bin/vllm serve nvidia/Kimi-K2.6-NVFP4 --tensor-parallel-size 4
        --trust-remote-code --kv-cache-dtype fp8 --block-size 64 --gpu-memory-utilization 0.90
        --attention-backend TOKENSPEED_MLA
        --attention-config {"use_prefill_query_quantization":true}
        --compilation-config {"cudagraph_mode":"FULL_AND_PIECEWISE","custom_ops":["all"]}
        --max-cudagraph-capture-size 2048
        """,
    ),
    "8xH200 with SGLang": (
        "sglang",
        """
        sglang serve --model-path moonshotai/Kimi-K2.7-Code --tp 8 --trust-remote-code
        --reasoning-parser kimi_k2 --tool-call-parser kimi_k2 --host 0.0.0.0 --port 30000
        """,
    ),
    "two nodes with SGLang": (
        "sglang",
        """
        python3 -m sglang.launch_server --model-path moonshotai/Kimi-K2-Instruct --tp 16
        --dist-init-addr 10.0.0.1:50000 --nnodes 2 --node-rank 1 --trust-remote-code
        """,
    ),
    "4x 48 GB with KTransformers": (
        "ktransformers",
        """
        python -m sglang.launch_server --host 0.0.0.0 --port 31245 --model /models/kimi
        --kt-weight-path /models/kimi --kt-cpuinfer 96 --kt-threadpool-count 2
        --kt-num-gpu-experts 30 --kt-method RAWINT4 --kt-gpu-prefill-token-threshold 400
        --trust-remote-code --mem-fraction-static 0.94 --served-model-name Kimi-K2.7-Code
        --enable-mixed-chunk --tensor-parallel-size 4 --enable-p2p-check
        --disable-shared-experts-fusion --chunked-prefill-size 32658 --max-total-tokens 50000
        --attention-backend flashinfer --tool-call-parser kimi_k2 --reasoning-parser kimi_k2
        """,
    ),
    "one GPU with llama.cpp": (
        "llamacpp",
        """
        llama-server --model /models/kimi-00001-of-00008.gguf --mmproj /models/mmproj-F16.gguf
        --alias kimi-k2.7-code --jinja --n-gpu-layers 99 -ot .ffn_.*_exps.=CPU
        --ctx-size 98304 --temp 1.0 --top-p 0.95 --host 0.0.0.0 --port 8080 --metrics
        """,
    ),
}


@pytest.fixture(scope="session")
def asked() -> Asked:
    """Return a way to a judge that is built when it was missing."""

    def get(name: str) -> Judge:
        JUDGES[name].build()
        return JUDGES[name]

    return get


def pieces(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return every engine's pieces, flat."""
    return [(engine, piece) for engine, several in table.items() for piece in several]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_published_command_is_accepted(asked: Asked, recipe: str) -> None:
    """Each engine takes the whole command that its own authors publish, word for word."""
    name, command = RECIPES[recipe]
    parsed = asked(name).parse(command.split())
    assert parsed.error is None
    assert parsed.ok


@pytest.mark.parametrize("name", JUDGES)
def test_an_unknown_flag_is_refused(asked: Asked, name: str) -> None:
    """A flag that no engine has is refused, and the message names it."""
    parsed = asked(name).parse([*shlex.split(BASE[name]), "--no-such-flag", "1"])
    assert not parsed.ok
    assert "--no-such-flag" in str(parsed.error)


@pytest.mark.parametrize("name", JUDGES)
def test_another_engines_command_is_refused(asked: Asked, name: str) -> None:
    """A judge answers only for commands that start its own engine."""
    parsed = asked(name).parse(["/usr/bin/true", "--port", "1"])
    assert not parsed.ok
    assert "command" in str(parsed.error) or "neither" in str(parsed.error)


@pytest.mark.parametrize(("name", "piece"), pieces(ACCEPTED))
def test_the_release_takes_the_flag(asked: Asked, name: str, piece: str) -> None:
    """A flag that we, or the fact sheet, count on is accepted by this release."""
    parsed = asked(name).parse(shlex.split(f"{BASE[name]} {piece}"))
    assert parsed.error is None


@pytest.mark.parametrize(("name", "piece"), pieces(REFUSED))
def test_the_release_refuses_the_flag(asked: Asked, name: str, piece: str) -> None:
    """What is written down as refused is refused: else the list is stale."""
    parsed = asked(name).parse(shlex.split(f"{BASE[name]} {piece}"))
    assert not parsed.ok
    assert parsed.error


def test_values_are_what_the_engine_understood(asked: Asked) -> None:
    """The namespace comes back with the engine's own names and types."""
    recipe = RECIPES["8xH200 with vLLM"][1].split()
    values = asked("vllm").parse(recipe).values
    assert values["tensor_parallel_size"] == 8
    assert values["enable_auto_tool_choice"] is True
    assert values["model"] == "moonshotai/Kimi-K2.7-Code"


@pytest.mark.parametrize(
    ("name", "known", "unknown"),
    [
        ("vllm", "VLLM_ENGINE_READY_TIMEOUT_S", "VLLM_NO_SUCH_VARIABLE"),
        ("sglang", "SGLANG_USE_AITER", "SGLANG_NO_SUCH_VARIABLE"),
    ],
)
def test_the_environment_is_judged_too(asked: Asked, name: str, known: str, unknown: str) -> None:
    """A variable with the engine's prefix that the release never reads is refused by name."""
    argv = shlex.split(BASE[name])
    assert asked(name).parse(argv, {known: "1"}).ok
    assert unknown in str(asked(name).parse(argv, {unknown: "1"}).error)


def test_a_deprecated_flag_is_accepted_with_a_warning(asked: Asked) -> None:
    """What an engine says about a flag it still takes isn't lost."""
    argv = shlex.split(f"{BASE['sglang']} --tp 8 --dp 8 --enable-dp-attention")
    parsed = asked("sglang").parse(argv)
    assert parsed.ok
    assert any("--enable-dp-attention" in line for line in parsed.warnings)


def test_an_abbreviation_is_accepted_with_a_warning(asked: Asked) -> None:
    """The beginning of an option parses today and may be ambiguous in the next release."""
    parsed = asked("sglang").parse(shlex.split(f"{BASE['sglang']} --mem-fraction 0.8"))
    assert parsed.ok
    assert parsed.warnings == ("--mem-fraction abbreviates an option",)


def test_a_last_option_without_its_value_is_refused(asked: Asked) -> None:
    """llama-server would take the judge's own `--help` for the value, and start to serve."""
    parsed = asked("llamacpp").parse(shlex.split(f"{BASE['llamacpp']} --alias"))
    assert parsed.error == "expected value for argument --alias"
