"""What `complete` adds beside the words: warnings, secrets by reference, refusals."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.catalog.types import EngineId
from kimideploy.engines import complete, unresolved
from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Layout, Offload, Plan, encode
from tests.unit.engines.plans import CATALOG, GGUF, gguf, hybrid, plan

S = TypeVar("S", bound=msgspec.Struct)
ENGINES: dict[EngineId, Plan] = {
    "vllm": plan(),
    "sglang": plan("sglang"),
    "ktransformers": hybrid(Offload(gpu_experts=30, threads=96, numa=2)),
    "llamacpp": gguf("rtx4090", Layout(), Offload(gpu_layers=((),), cpu_layers=60)),
}


def with_args(made: Plan, *words: str) -> Plan:
    """Return *made* with words of the user's own for the engine."""
    return _requested(made, engine_args=words)


def _requested(made: Plan, **request: Any) -> Plan:
    return _replaced(made, request=_replaced(made.request, **request))


def _replaced(value: S, **fields: Any) -> S:
    return msgspec.structs.replace(value, **fields)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_plan_keeps_everything_else(engine: EngineId) -> None:
    """Only launches are new, and completing twice changes nothing."""
    done = complete(ENGINES[engine], CATALOG)

    assert ENGINES[engine] == _replaced(done, launches=(), warnings=())
    assert encode(done) == encode(complete(done, CATALOG))


@pytest.mark.parametrize(
    ("made", "word", "flag"),
    [
        (plan(layout=Layout(tp=8, pp=2), nodes=2), "HEAD_ADDRESS", "--head-address"),
        (
            plan("sglang", layout=Layout(tp=8, pp=2), nodes=2),
            "HEAD_ADDRESS",
            "--head-address",
        ),
        (
            plan("llamacpp", None, layout=Layout(), checkpoint="gguf-ud-iq2_m"),
            "FIRST_PART.gguf",
            "--model-path",
        ),
    ],
)
def test_a_placeholder_is_told(made: Plan, word: str, flag: str) -> None:
    """What nobody has said yet stands in the command by a name, and the plan warns of it."""
    done = complete(made, CATALOG)

    assert [(word,)] * len(done.launches) == [unresolved(launch) for launch in done.launches]
    assert [flag in notice.text for notice in done.warnings] == [True]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_left_open_when_everything_is_said(engine: EngineId) -> None:
    """A plan for one known node has no placeholder and no warning."""
    done = complete(ENGINES[engine], CATALOG)

    assert [()] == [unresolved(launch) for launch in done.launches]
    assert () == done.warnings


def test_guessed_cores_are_told() -> None:
    """KTransformers must be told a number of threads; without facts it is a guess that says so."""
    done = complete(hybrid(Offload(gpu_experts=30)), CATALOG)

    assert "--kt-cpuinfer 32 --kt-threadpool-count 1" in " ".join(done.launches[0].argv)
    assert ["cores-guess"] == [notice.code for notice in done.warnings]


def test_sglang_can_not_leave_vision_out() -> None:
    """SGLang has no flag for text only, and the plan says so."""
    done = complete(plan("sglang", text_only=True), CATALOG)

    assert ["text-only"] == [notice.code for notice in done.warnings]


@pytest.mark.parametrize(
    ("engine", "variable"), [("vllm", "VLLM_API_KEY"), ("llamacpp", "LLAMA_API_KEY")]
)
def test_a_wider_bind_needs_a_key(engine: EngineId, variable: str) -> None:
    """Beyond loopback the key comes by reference: neither argv nor env hold it."""
    (launch,) = _launches(_requested(ENGINES[engine], bind="0.0.0.0"))

    assert [(variable, "/etc/kimideploy/api.key")] == [
        (secret.variable, secret.file) for secret in launch.secrets
    ]
    assert variable not in dict(launch.env)
    assert not any("api" in word for word in launch.argv)


@pytest.mark.parametrize("engine", ["sglang", "ktransformers"])
def test_an_engine_that_takes_its_key_in_argv_stays_on_loopback(engine: EngineId) -> None:
    """SGLang reads its key from argv only, so a wider bind is refused."""
    with pytest.raises(RequestError, match="argv"):
        complete(_requested(ENGINES[engine], bind="10.0.0.1"), CATALOG)


@pytest.mark.parametrize("engine", ENGINES)
def test_loopback_needs_no_key(engine: EngineId) -> None:
    """On loopback there is no secret at all."""
    assert [()] == [launch.secrets for launch in _launches(ENGINES[engine])]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", ("--seed=7",)),
        ("vllm", ("--seed", "7", "--safetensors-load-strategy", "prefetch")),
        ("vllm", ("--seed", "-1")),
        ("sglang", ("--enable-metrics-for-all-schedulers",)),
        ("ktransformers", ("--kt-max-deferred-experts-per-token", "2")),
        ("llamacpp", ("--min-p", "0.01", "--no-host")),
    ],
)
def test_other_words_are_appended(engine: EngineId, words: tuple[str, ...]) -> None:
    """The user's words follow ours as they are."""
    (launch,) = _launches(with_args(ENGINES[engine], *words))

    assert words == launch.argv[-len(words) :]


@pytest.mark.parametrize(
    ("engine", "word", "instead"),
    [
        ("vllm", "--tensor-parallel-size=4", "--hardware"),
        ("vllm", "-tp", "--hardware"),
        ("vllm", "--pipeline-parallel-size=2", "--hardware"),
        ("vllm", "--max-model-len=1000", "--context"),
        ("vllm", "--max_model_len=1000", "--context"),
        ("vllm", "--max-model-l=1000", "--context"),
        ("vllm", "--kv-cache-dtype=fp8", "--kv-dtype"),
        ("vllm", "--max-num-seqs=64", "--sequences"),
        ("vllm", "--max-num-batched-tokens=64", "--batch-tokens"),
        ("vllm", "--gpu-memory-utilization=0.9", "--memory-fraction"),
        ("sglang", "--chunked-prefill-size=64", "--batch-tokens"),
        ("vllm", "--host=0.0.0.0", "--bind"),
        ("vllm", "--port", "--port"),
        ("vllm", "--api-key=abc", "proxy"),
        ("vllm", "--config=x.yaml", "each flag"),
        ("vllm", "--tool-call-parser=hermes", "parsers"),
        ("vllm", "--reasoning-parser", "parsers"),
        ("vllm", "--no-enable-auto-tool-choice", "parsers"),
        ("vllm", "--no-trust-remote-code", "plan's own value"),
        ("vllm", "--speculative-config.model=x", "--draft"),
        ("vllm", "-sc", "--draft"),
        ("vllm", "--trust-request-chat-template", "run code"),
        ("sglang", "--tp", "--hardware"),
        ("sglang", "--tensor-parallel-size=4", "--hardware"),
        ("sglang", "--model", "--checkpoint"),
        ("sglang", "--enable-dp-attention", "--hardware"),
        ("sglang", "--admin-api-key=x", "proxy"),
        ("sglang", "--enable-custom-logit-processor", "run code"),
        ("ktransformers", "--kt-num-gpu-experts=3", "plan's own value"),
        ("ktransformers", "--tp-size=3", "--hardware"),
        ("llamacpp", "-c", "--context"),
        ("llamacpp", "-ngl", "plan's own value"),
        ("llamacpp", "--no-jinja", "parsers"),
        ("llamacpp", "-hf", "--checkpoint"),
        ("llamacpp", "--api-key", "proxy"),
        ("llamacpp", "-hft", "HF_TOKEN"),
    ],
)
def test_a_conflict_is_refused_with_what_to_use(engine: EngineId, word: str, instead: str) -> None:
    """A flag that is ours, or breaks a promise, is named together with the way that works."""
    with pytest.raises(RequestError) as caught:
        complete(with_args(ENGINES[engine], word), CATALOG)

    assert repr(word) in caught.value.message
    assert caught.value.hint is not None
    assert instead in caught.value.hint


@pytest.mark.parametrize("words", [("64",), ("",), ("--seed", "a\x00b"), ("--x=\x1b[0m",)])
def test_a_word_that_is_no_flag_is_refused(words: tuple[str, ...]) -> None:
    """The first word must be a flag, and none holds a control character."""
    with pytest.raises(RequestError, match="--engine-arg"):
        complete(with_args(plan(), *words), CATALOG)


@given(words=st.lists(st.text(max_size=8), max_size=4))
def test_any_words_give_a_launch_or_a_request_error(words: list[str]) -> None:
    """Whatever is typed ends in a launch that carries it, or in an expected error."""
    try:
        (launch,) = _launches(with_args(plan(), *words))
    except RequestError:
        return

    assert words == list(launch.argv[len(launch.argv) - len(words) :])


@pytest.mark.parametrize("name", ["", "-x", "a b", "a,b", "a\nb", "é", "x" * 200])
def test_a_served_name_is_a_plain_word(name: str) -> None:
    """Names that an engine would take for a flag, a list or nothing are refused."""
    with pytest.raises(RequestError, match="served model name"):
        complete(plan(served_name=name), CATALOG)


@pytest.mark.parametrize("path", ["", "-x", "~/models", " /srv", "/srv\n", "/a\x00b"])
def test_a_model_path_is_a_plain_path(path: str) -> None:
    """Paths that an engine would take for something else are refused."""
    with pytest.raises(RequestError, match="--model-path"):
        complete(plan(model_path=path), CATALOG)


@pytest.mark.parametrize("host", ["", "--x", "a b", "1.2.3.4\n", "$(id)"])
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    """Anything else is refused, for the head's address too."""
    with pytest.raises(RequestError, match="--bind"):
        complete(plan(bind=host), CATALOG)
    with pytest.raises(RequestError, match="--head-address"):
        complete(plan(head_address=host), CATALOG)


def test_a_plan_of_other_profiles_is_refused() -> None:
    """A checkpoint that no profile knows is an error with the way out."""
    made = plan()
    strange = _replaced(made, candidate=_replaced(made.candidate, checkpoint="int3"))

    with pytest.raises(RequestError, match="int3"):
        complete(strange, CATALOG)


def test_a_plan_larger_than_its_inventory_is_refused() -> None:
    """Two nodes can't be launched from an inventory of one."""
    made = plan()
    strange = _replaced(made, candidate=_replaced(made.candidate, nodes=2))

    with pytest.raises(RequestError, match="inventory"):
        complete(strange, CATALOG)


def test_the_first_part_is_named_by_the_profile() -> None:
    """A quant whose number of parts is known names its first part, which llama-server needs."""
    (launch,) = _launches(plan("llamacpp", None, layout=Layout(), checkpoint=GGUF))

    assert launch.argv[2].endswith("/Kimi-K2.7-Code-UD-Q2_K_XL-00001-of-00008.gguf")


def _launches(made: Plan) -> tuple[Launch, ...]:
    return complete(made, CATALOG).launches
