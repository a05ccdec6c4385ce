"""What the planner must say about machines people ask about."""

from __future__ import annotations

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.facts.hardware import parse_hardware
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_hardware
from kimideploy.planning.types import Decision, NoFit, Plan, Request, encode

GIB = 1 << 30
CATALOG = load_catalog()


def planned(hardware: str, **request: object) -> Decision:
    """Return the decision for a hardware word."""
    inventory = inventory_from_hardware(parse_hardware(hardware), CATALOG)
    return decide(Request(**request), inventory, CATALOG)  # type: ignore[arg-type]


def plan_for(hardware: str, **request: object) -> Plan:
    """Return the plan for a hardware word; a no fails the test."""
    decision = planned(hardware, **request)
    assert isinstance(decision, Plan), getattr(decision, "reason", "")
    return decision


def no_fit(hardware: str, **request: object) -> NoFit:
    """Return the no for a hardware word; a plan fails the test."""
    decision = planned(hardware, **request)
    assert isinstance(decision, NoFit)
    return decision


def test_reference_machine() -> None:
    """8 × H200 serve the INT4 checkpoint at TP8 on vLLM, with the whole context."""
    plan = plan_for("8xH200")

    assert (plan.candidate.checkpoint, plan.candidate.engine) == ("int4", "vllm")
    assert str(plan.candidate.layout) == "TP8"
    assert plan.candidate.tier == "int4-h200"
    weights = ("routed experts", "other weights", "replicated", "absorbed", "vision")
    assert pytest.approx(71.95, rel=0.01) == sum(plan.fit.of(c) for c in weights) / GIB
    assert plan.fit.context == 262_144
    assert pytest.approx(747_000, rel=0.01) == plan.fit.kv_tokens


def test_four_h200_do_not_hold_it() -> None:
    """4 × H200 are refused with 140.99 GiB needed on a 139.8 GiB card."""
    decision = no_fit("4xH200", checkpoint="int4")

    assert decision.fit is not None
    weights = ("routed experts", "other weights", "replicated", "absorbed", "vision")
    assert pytest.approx(140.99, rel=0.001) == sum(decision.fit.of(c) for c in weights) / GIB
    assert pytest.approx(139.8, rel=0.001) == decision.fit.capacity / GIB


def test_article_tier_on_a100() -> None:
    """8 × A100-80 are a no at 32k, with numbers and four kinds of ways out."""
    decision = no_fit("8xA100-80GB", tier="int4-a100")

    assert decision.nearest is not None
    assert decision.nearest.need is not None
    assert decision.nearest.have is not None
    assert decision.nearest.need > decision.nearest.have
    ways = " | ".join(way.change for way in decision.ways_out)
    assert "2 nodes" in ways
    assert "TP8×PP2" in ways
    assert "gguf" in ways
    assert "hybrid" in ways
    assert "--min-context" in ways


def test_ways_out_hold() -> None:
    """A way out that is called proved is a plan when its flags are given."""
    decision = no_fit("8xA100-80GB", tier="int4-a100")

    proved = [way for way in decision.ways_out if way.proved]
    assert proved
    for way in proved:
        words = dict(zip(way.flags[::2], way.flags[1::2], strict=False))
        request: dict[str, object] = {"tier": words.get("--tier", "int4-a100")}
        if "--min-context" in way.flags:
            request["min_context"] = int(way.flags[1])
            request["text_only"] = "--text-only" in way.flags
            request["allow_tight"] = "--allow-tight" in way.flags
        hardware = words.get("--hardware", "8xA100-80GB")
        ram = f"+{words['--ram']}" if "--ram" in words else ""
        assert isinstance(planned(hardware + ram, **request), Plan), way


def test_a100_without_a_tier() -> None:
    """8 × A100-80 serve something: a GGUF that lies wholly on the GPUs."""
    plan = plan_for("8xA100-80GB")

    assert plan.candidate.engine == "llamacpp"
    assert plan.candidate.offload is not None
    assert plan.candidate.offload.cpu_layers == 0


def test_two_nodes_of_h100() -> None:
    """2 × 8 × H100-80 serve INT4 as TP8×PP2 over both nodes."""
    plan = plan_for("2x8xH100-80GB")

    assert str(plan.candidate.layout) == "TP8×PP2"
    assert plan.candidate.nodes == 2
    assert plan.candidate.tier == "int4-2node-80gb"


def test_fp16_is_no_checkpoint() -> None:
    """The fp16 tier says that nobody published it, its size, and that 29 GPUs is no layout."""
    decision = no_fit("8xH100-80GB", tier="fp16")

    assert "no official" in decision.reason
    assert "2.05 TB" in decision.reason
    assert "29" in decision.reason
    assert "no valid layout" in decision.reason


def test_one_small_card_with_memory() -> None:
    """A 24 GB card and 384 GiB of memory serve the 2-bit GGUF."""
    plan = plan_for("1xRTX4090+384GiB")

    assert plan.candidate.tier == "gguf-2bit"
    assert plan.candidate.checkpoint == "gguf-ud-q2_k_xl"


def test_four_48gb_cards_with_memory() -> None:
    """Four 48 GB cards and 700 GiB of memory serve INT4 as a hybrid."""
    plan = plan_for("4xRTX4090-48GB+700GiB")

    assert (plan.candidate.tier, plan.candidate.engine) == ("hybrid", "ktransformers")
    assert plan.candidate.offload is not None
    assert plan.candidate.offload.gpu_experts
    assert sum(share.bytes for share in plan.fit.ram) <= 700 * GIB


@pytest.mark.parametrize(
    ("hardware", "request_", "rule"),
    [
        ("6xH200", {}, "heads"),
        ("8xA100-80GB", {"kv_dtype": "fp8", "checkpoint": "int4"}, "kv-dtype"),
        ("2x8xA100-80GB", {"checkpoint": "int4", "goal": "context"}, "dcp"),
        ("1xGB10", {"checkpoint": "int4"}, "format-on-gpu"),
        ("8xH200", {"checkpoint": "nvfp4"}, "format-on-gpu"),
        ("8xMI300X", {"engine": "sglang", "checkpoint": "int4"}, "aiter-heads"),
        ("2x8xH100-80GB", {"checkpoint": "int4", "draft": True}, "draft-pp"),
        ("2x8xH100-80GB", {"checkpoint": "int4"}, "tp-domain"),
        ("8xH200", {"engine": "llamacpp", "checkpoint": "int4"}, "engine-format"),
        ("1xRTX4090+384GiB", {"checkpoint": "gguf-ud-q4_k_xl"}, "ram"),
        ("4xRTX4090-48GB", {"engine": "ktransformers"}, "ram-unknown"),
        ("0+768GiB", {"engine": "vllm"}, "no-gpu"),
        ("8xMI355X", {"checkpoint": "int4"}, "expert-parallel"),
    ],
)
def test_rule(hardware: str, request_: dict[str, object], rule: str) -> None:
    """Each rule refuses the machine it was written for, by name."""
    decision = planned(hardware, **request_)

    assert rule in {rejection.rule for rejection in decision.rejected}


def test_every_rejection_has_numbers_or_words() -> None:
    """A rejection says why; one about memory says how much against how much."""
    for hardware in ("8xH200", "8xA100-80GB", "1xRTX4090+128GiB", "8xMI300X"):
        for rejection in planned(hardware).rejected:
            assert len(rejection.reason) > 10
            if rejection.rule in {"weights", "context", "ram"}:
                assert rejection.need is not None
                assert rejection.have is not None
                assert rejection.need > rejection.have


def test_a_rejection_names_no_false_way_out() -> None:
    """More GPUs are named only where they would hold the weights."""
    small = planned("1xRTX4090+384GiB")
    large = planned("8xH200", checkpoint="int4", engine="vllm")

    assert not [r for r in small.rejected if r.way_out and "nodes" in r.way_out]
    assert {r.way_out for r in large.rejected if r.rule == "weights"} == {"TP8"}


def test_same_input_same_bytes() -> None:
    """A decision is a function of its arguments, to the byte."""
    assert encode(planned("8xH200")) == encode(planned("8xH200"))


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "kimi-k3"},
        {"tier": "int4-h20O"},
        {"checkpoint": "int5"},
        {"context": 0},
        {"context": 10_000_000},
        {"concurrency": 0},
        {"context": 4096, "min_context": 8192},
        {"port": 70_000},
    ],
)
def test_wrong_request(request_: dict[str, object]) -> None:
    """A name no profile knows or a number nobody can mean is a wrong request."""
    with pytest.raises(RequestError):
        planned("8xH200", **request_)


def rate(plan: Plan) -> float:
    """Return the most output tok/s that the plan is predicted to give, 32k deep."""
    assert plan.speed is not None
    return max(p.total.typical for p in plan.speed.points if p.context == 32_768)


def test_throughput_takes_what_is_predicted_to_give_most() -> None:
    """On 8 × H200 DCP8 holds more users, so it comes first; the KV cache stays bf16."""
    balanced, most = plan_for("8xH200"), plan_for("8xH200", goal="throughput")

    assert (1, 8) == (balanced.candidate.layout.dcp, most.candidate.layout.dcp)
    assert "bf16" == most.candidate.kv_dtype
    assert rate(most) > 2 * rate(balanced)


def test_latency_takes_no_slower_first_user() -> None:
    """No alternative's lone user is predicted to be clearly faster than the chosen one's."""
    for hardware in ("8xH200", "2x8xH100-80GB", "8xMI300X"):
        fast, most = plan_for(hardware, goal="latency"), plan_for(hardware, goal="throughput")

        assert fast.speed is not None
        assert most.speed is not None
        assert fast.speed.points[0].per_user.typical >= most.speed.points[0].per_user.typical


def test_cost_takes_the_fewest_gpu_seconds() -> None:
    """Two copies on four B300 each give more for the money than one on eight."""
    cheap, most = plan_for("8xB300", goal="cost"), plan_for("8xB300", goal="throughput")

    assert (4, 2) == (cheap.candidate.gpus_per_node, cheap.copies)
    assert rate(cheap) / 4 > 0.8 * rate(most) / 8


def test_copies_share_no_host_memory() -> None:
    """Experts in host memory are there once, however many GPUs are left."""
    plan = plan_for("8xL40S+768GiB", engine="ktransformers", goal="cost")
    taken = sum(share.bytes for share in plan.fit.ram)

    assert plan.copies * taken <= 768 * GIB


def test_why_names_the_settings() -> None:
    """The KV dtype and DCP that were not taken are named with what they would hold."""
    why = " ".join(plan_for("8xH200").why)

    assert "no DCP: it would hold 8 times the tokens" in why
    assert "KV cache in bf16, as it was trained: it holds" in why
