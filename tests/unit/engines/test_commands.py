"""Whole commands: what each engine is told for each kind of plan."""

from __future__ import annotations

import shlex

import msgspec
import pytest

from kimideploy.catalog.types import EngineId
from kimideploy.engines import complete
from kimideploy.planning.types import Launch, Layout, Offload, Plan
from tests.unit.engines.plans import CATALOG, DRAFT, REVISION, gguf, hybrid, plan

PARSERS = "--tool-call-parser kimi_k2 --reasoning-parser kimi_k2"
VLLM_END = (
    "--tool-call-parser kimi_k2 --enable-auto-tool-choice --reasoning-parser kimi_k2"
    """ --override-generation-config '{"temperature":1.0,"top_p":0.95}'"""
)
PYTHON = {"DO_NOT_TRACK": "1", "PYTHONNOUSERSITE": "1"}
VLLM = {**PYTHON, "VLLM_ENGINE_READY_TIMEOUT_S": "3600", "VLLM_NO_USAGE_STATS": "1"}
QUIET = {"DO_NOT_TRACK": "1"}
MODELS = "/var/lib/kimideploy/models"
KT_MODEL = f"{MODELS}/moonshotai/Kimi-K2.7-Code"
GGUF_MODEL = f"{MODELS}/unsloth/Kimi-K2.7-Code-GGUF"

CASES: dict[str, tuple[Plan, str, dict[str, str]]] = {
    "vllm on the reference machine": (
        plan(),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --mm-encoder-tp-mode data {VLLM_END}""",
        VLLM,
    ),
    "vllm from a folder, text only, fp8 cache spread over the ranks, all experts apart": (
        plan(
            layout=Layout(tp=8, dcp=8, ep=True),
            kv="fp8",
            model_path="/srv/models/kimi",
            text_only=True,
            port=9000,
            served_name="code",
        ),
        f"""vllm serve /srv/models/kimi --served-model-name code
        --host 127.0.0.1 --port 9000 --trust-remote-code --tensor-parallel-size 8
        --decode-context-parallel-size 8 --enable-expert-parallel
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype fp8
        --language-model-only {VLLM_END}""",
        {**VLLM, "HF_HUB_OFFLINE": "1"},
    ),
    "vllm at a pinned revision with a draft": (
        plan(revision=REVISION, draft=DRAFT),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code
        --revision {REVISION} --code-revision {REVISION} --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --mm-encoder-tp-mode data {VLLM_END} --speculative-config
        '{{"method":"eagle3","model":"{DRAFT}","num_speculative_tokens":3}}'""",
        VLLM,
    ),
    "vllm with attention on every GPU by itself": (
        plan(layout=Layout(dp=8, ep=True)),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 1
        --data-parallel-size 8 --enable-expert-parallel
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --mm-encoder-tp-mode data {VLLM_END}""",
        VLLM,
    ),
    "vllm on MI300X": (
        plan(gpu="mi300x"),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --mm-encoder-tp-mode data {VLLM_END}""",
        {**VLLM, "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "INT4", "VLLM_ROCM_USE_AITER": "1"},
    ),
    "vllm on MI355X": (
        plan(gpu="mi355x"),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --moe-backend flydsl
        --compilation-config '{{"pass_config":{{"fuse_allreduce_rms":false}}}}'
        --mm-encoder-tp-mode data {VLLM_END}""",
        {**VLLM, "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "INT4", "VLLM_ROCM_USE_AITER": "1"},
    ),
    "vllm on RTX PRO 6000": (
        plan(gpu="rtx-pro-6000", kv="fp8"),
        f"""vllm serve moonshotai/Kimi-K2.7-Code --served-model-name kimi-k2.7-code
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype fp8
        --attention-backend TRITON_MLA --mm-encoder-tp-mode data {VLLM_END}""",
        {
            **VLLM,
            "NCCL_P2P_LEVEL": "SYS",
            "VLLM_DISABLED_KERNELS": "MarlinFP8ScaledMMLinearKernel",
        },
    ),
    "vllm for K2-Thinking, which sees no images": (
        plan(model="kimi-k2-thinking", served_name="kimi-k2-thinking", text_only=True),
        """vllm serve moonshotai/Kimi-K2-Thinking --served-model-name kimi-k2-thinking
        --host 127.0.0.1 --port 8000 --trust-remote-code --tensor-parallel-size 8
        --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype bfloat16
        --tool-call-parser kimi_k2 --enable-auto-tool-choice --reasoning-parser kimi_k2
        --override-generation-config '{"temperature":1.0}'""",
        VLLM,
    ),
    "sglang on the reference machine": (
        plan("sglang", revision=REVISION),
        f"""sglang serve --model-path moonshotai/Kimi-K2.7-Code
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --revision {REVISION} --tp-size 8 --context-length 131072
        --mem-fraction-static 0.9 --kv-cache-dtype bf16 {PARSERS} --enable-metrics""",
        PYTHON,
    ),
    "sglang with a draft": (
        plan("sglang", draft=DRAFT),
        f"""sglang serve --model-path moonshotai/Kimi-K2.7-Code
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --tp-size 8 --context-length 131072
        --mem-fraction-static 0.9 --kv-cache-dtype bf16 {PARSERS} --enable-metrics
        --speculative-algorithm EAGLE3 --speculative-draft-model-path {DRAFT}
        --speculative-num-steps 3 --speculative-eagle-topk 1
        --speculative-num-draft-tokens 4""",
        PYTHON,
    ),
    "sglang on MI300X": (
        plan("sglang", "mi300x", layout=Layout(tp=4), kv="fp8"),
        f"""sglang serve --model-path moonshotai/Kimi-K2.7-Code
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --tp-size 4 --context-length 131072
        --mem-fraction-static 0.9 --kv-cache-dtype fp8_e4m3 {PARSERS} --enable-metrics""",
        {**PYTHON, "SGLANG_ROCM_FUSED_DECODE_MLA": "0", "SGLANG_USE_AITER": "1"},
    ),
    "sglang on B300 with an fp8 cache": (
        plan("sglang", "b300", kv="fp8"),
        f"""sglang serve --model-path moonshotai/Kimi-K2.7-Code
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --tp-size 8 --context-length 131072
        --mem-fraction-static 0.9 --kv-cache-dtype fp8_e4m3
        --attention-backend tokenspeed_mla {PARSERS} --enable-metrics""",
        PYTHON,
    ),
    "sglang on B300 with NVFP4 weights and a bf16 cache": (
        plan("sglang", "b300", checkpoint="nvfp4"),
        f"""sglang serve --model-path nvidia/Kimi-K2.7-Code-NVFP4
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --tp-size 8 --context-length 131072
        --mem-fraction-static 0.9 --kv-cache-dtype bf16 --quantization modelopt_fp4
        {PARSERS} --enable-metrics""",
        PYTHON,
    ),
    "sglang with attention on every GPU by itself": (
        plan("sglang", layout=Layout(dp=8, ep=True)),
        f"""sglang serve --model-path moonshotai/Kimi-K2.7-Code
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --tp-size 8 --attn-dp-size 8 --ep-size 8
        --context-length 131072 --mem-fraction-static 0.9 --kv-cache-dtype bf16
        {PARSERS} --enable-metrics""",
        PYTHON,
    ),
    "ktransformers on four cards": (
        hybrid(Offload(gpu_experts=30, threads=96, numa=2)),
        f"""python3 -m sglang.launch_server --model-path {KT_MODEL}
        --served-model-name kimi-k2.7-code --host 127.0.0.1 --port 30000 --trust-remote-code
        --kt-weight-path {KT_MODEL} --kt-method RAWINT4 --kt-cpuinfer 96
        --kt-threadpool-count 2 --kt-num-gpu-experts 30 --kt-gpu-prefill-token-threshold 400
        --tp-size 4 --enable-p2p-check --context-length 131072
        --mem-fraction-static 0.9 --max-total-tokens 131072 --kv-cache-dtype bf16
        --enable-mixed-chunk --disable-shared-experts-fusion
        --attention-backend flashinfer {PARSERS} --enable-metrics""",
        PYTHON,
    ),
    "llama.cpp on one card, experts of the first layers outside": (
        gguf("rtx4090", Layout(), Offload(gpu_layers=((1, 2),), cpu_layers=58, threads=32, numa=1)),
        f"""llama-server
        --model {GGUF_MODEL}/UD-Q2_K_XL/Kimi-K2.7-Code-UD-Q2_K_XL-00001-of-00008.gguf
        --mmproj {GGUF_MODEL}/mmproj-F16.gguf --alias kimi-k2.7-code
        --host 127.0.0.1 --port 8080 --jinja --reasoning-format deepseek
        --ctx-size 131072 --parallel 1 --n-gpu-layers 99 --fit off --n-cpu-moe 59
        --threads 32 --temp 1 --top-p 0.95 --metrics""",
        QUIET,
    ),
    "llama.cpp on one card, all experts outside, a quantised cache for four": (
        gguf(
            "rtx4090",
            Layout(),
            Offload(gpu_layers=((),), cpu_layers=60, threads=64, numa=2),
            kv="q8_0",
            concurrency=4,
            text_only=True,
            model_path="/srv/gguf",
        ),
        """llama-server
        --model /srv/gguf/UD-Q2_K_XL/Kimi-K2.7-Code-UD-Q2_K_XL-00001-of-00008.gguf
        --alias kimi-k2.7-code --host 127.0.0.1 --port 8080 --jinja
        --reasoning-format deepseek --ctx-size 524288 --parallel 4 --cache-type-k q8_0
        --n-gpu-layers 99 --fit off --cpu-moe --threads 64 --numa distribute
        --temp 1 --top-p 0.95 --metrics""",
        QUIET,
    ),
    "llama.cpp on four cards, each with experts of its own layers": (
        gguf(
            "rtx4090",
            Layout(pp=4),
            Offload(
                gpu_layers=(
                    tuple(range(1, 16)),
                    tuple(range(16, 31)),
                    tuple(range(31, 46)),
                    tuple(range(46, 58)),
                ),
                cpu_layers=3,
            ),
            model_path="/srv/UD-Q2_K_XL/one.gguf",
        ),
        r"""llama-server --model /srv/UD-Q2_K_XL/one.gguf --mmproj /srv/mmproj-F16.gguf
        --alias kimi-k2.7-code --host 127.0.0.1 --port 8080 --jinja
        --reasoning-format deepseek --ctx-size 131072 --parallel 1 --n-gpu-layers 99
        --fit off --tensor-split 16,15,15,16
        --override-tensor 'blk\.(58|59|60)\.ffn_.*_exps\.=CPU'
        --temp 1 --top-p 0.95 --metrics""",
        QUIET,
    ),
    "llama.cpp on eight cards that hold everything": (
        gguf(
            "a100-80",
            Layout(pp=8),
            Offload(
                gpu_layers=tuple(tuple(range(1 + 8 * i, min(61, 9 + 8 * i))) for i in range(8))
            ),
            model_path="/srv/one.gguf",
            text_only=True,
        ),
        """llama-server --model /srv/one.gguf
        --alias kimi-k2.7-code --host 127.0.0.1 --port 8080 --jinja
        --reasoning-format deepseek --ctx-size 131072 --parallel 1 --n-gpu-layers 99
        --fit off --tensor-split 8,8,8,8,8,7,7,8 --temp 1 --top-p 0.95 --metrics""",
        QUIET,
    ),
    "llama.cpp without a card": (
        gguf(None, Layout(), Offload(cpu_layers=60, threads=64), text_only=True),
        f"""llama-server
        --model {GGUF_MODEL}/UD-Q2_K_XL/Kimi-K2.7-Code-UD-Q2_K_XL-00001-of-00008.gguf
        --alias kimi-k2.7-code --host 127.0.0.1 --port 8080 --jinja
        --reasoning-format deepseek --ctx-size 131072 --parallel 1 --n-gpu-layers 0
        --threads 64 --temp 1 --top-p 0.95 --metrics""",
        QUIET,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_node_is_told_exactly_this(name: str) -> None:
    """The words and the environment of the only node, whole."""
    made, expected, environment = CASES[name]
    (launch,) = complete(made, CATALOG).launches

    assert shlex.split(expected) == list(launch.argv)
    assert environment == dict(launch.env)


def test_vllm_over_two_nodes() -> None:
    """Both nodes get the same words but for their rank; the second has no endpoint."""
    head, second = _launches(
        plan(
            gpu="h100-80",
            layout=Layout(tp=8, pp=2),
            nodes=2,
            addresses=("10.0.0.1", "10.0.0.2"),
        )
    )
    across = "--nnodes 2 --node-rank {} --master-addr 10.0.0.1"

    assert f"--pipeline-parallel-size 2 {across.format(0)} --max-model-len" in _line(head)
    assert f"--pipeline-parallel-size 2 {across.format(1)} --headless --max" in _line(second)
    assert (False, True) == (head.headless, second.headless)
    assert [("VLLM_HOST_IP", "10.0.0.1"), ("VLLM_HOST_IP", "10.0.0.2")] == [
        pair for launch in (head, second) for pair in launch.env if pair[0] == "VLLM_HOST_IP"
    ]


def test_sglang_over_two_nodes() -> None:
    """SGLang meets at the head's address, which the request may name."""
    head, second = _launches(
        plan("sglang", "h100-80", layout=Layout(tp=8, pp=2), nodes=2, head_address="head.example")
    )
    across = "--nnodes 2 --node-rank {} --dist-init-addr head.example:50000"

    assert f"--pp-size 2 {across.format(0)} --context-length" in _line(head)
    assert f"--pp-size 2 {across.format(1)} --context-length" in _line(second)
    assert (False, True) == (head.headless, second.headless)


@pytest.mark.parametrize("name", CASES)
def test_no_launch_splits_the_allocator(name: str) -> None:
    """expandable_segments breaks custom all-reduce (https://github.com/vllm-project/vllm/issues/42609)."""
    (launch,) = _launches(CASES[name][0])

    assert "PYTORCH_CUDA_ALLOC_CONF" not in dict(launch.env)


def _launches(made: Plan) -> tuple[Launch, ...]:
    return complete(made, CATALOG).launches


def _line(launch: Launch) -> str:
    return " ".join(launch.argv)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", "--max-num-batched-tokens 2048 --max-num-seqs 64"),
        ("sglang", "--chunked-prefill-size 2048 --max-running-requests 64"),
        ("ktransformers", "--chunked-prefill-size 2048"),
    ],
)
def test_chosen_settings_are_told(engine: EngineId, words: str) -> None:
    """What the planner counted memory with is what the engine is told."""
    made = hybrid(Offload(gpu_experts=30)) if engine == "ktransformers" else plan(engine=engine)
    fit = msgspec.structs.replace(made.fit, batch_tokens=2048, sequences=64)
    launch = complete(msgspec.structs.replace(made, fit=fit), CATALOG).launches[0]

    assert words in " ".join(launch.argv)


def test_graphs_that_are_not_set_aside() -> None:
    """vLLM is told by its environment not to set graphs aside where the planner counted them."""
    made = plan()
    fit = msgspec.structs.replace(made.fit, graphs_set_aside=False)
    launch = complete(msgspec.structs.replace(made, fit=fit), CATALOG).launches[0]

    assert ("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "0") in launch.env
