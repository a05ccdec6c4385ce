"""What must hold for any machine and any request."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.catalog.load import load_catalog
from kimideploy.errors import RequestError
from kimideploy.planning.decide import decide
from kimideploy.planning.types import Decision, Inventory, Node, Plan, Request

GIB = 1 << 30
CATALOG = load_catalog()
GPUS = sorted(CATALOG.gpus)


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Node, ...]:
    """Up to three like nodes of a GPU of the catalog, or without one."""
    gpu = CATALOG.gpus[draw(st.sampled_from(GPUS))]
    count = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 10, 16]))
    ram = draw(st.none() | st.integers(1 * GIB, 2048 * GIB))
    return tuple(
        Node(
            name=f"n{index}",
            gpu=gpu.id,
            gpus=count,
            gpu_memory=int(gpu.memory.usable),
            generation=gpu.generation,
            domain=min(gpu.interconnect.domain, count),
            ram=ram,
        )
        for index in range(draw(st.integers(1, 3)))
    )


requests = st.builds(
    Request,
    model=st.sampled_from(sorted(CATALOG.models)),
    tier=st.none() | st.sampled_from([tier.id for tier in CATALOG.tiers]),
    engine=st.none() | st.sampled_from(sorted(CATALOG.engines)),
    context=st.none() | st.integers(1, 131_072),
    min_context=st.none() | st.integers(1, 131_072),
    concurrency=st.integers(1, 64),
    kv_dtype=st.none() | st.sampled_from(["bf16", "fp8", "q8_0"]),
    text_only=st.booleans(),
    draft=st.booleans(),
    goal=st.sampled_from(["balanced", "latency", "throughput", "context", "cost"]),
    allow_tight=st.booleans(),
)


def decided(request: Request, inventory: Inventory) -> Decision | None:
    """Return the decision, or None where the request contradicts itself."""
    try:
        return decide(request, inventory, CATALOG)
    except RequestError:
        return None


@settings(max_examples=150, deadline=None)
@given(requests, nodes())
def test_bytes_add_up(request: Request, group: tuple[Node, ...]) -> None:
    """A plan's bytes by cause sum to the card, and its tokens fit into its cache."""
    decision = decided(request, Inventory(nodes=group))
    if not isinstance(decision, Plan):
        return
    fit, layout = decision.fit, decision.candidate.layout

    assert fit.short == 0
    assert all(share.bytes >= 0 for share in (*fit.shares, *fit.ram))
    if fit.shares:
        assert sum(share.bytes for share in fit.shares) == fit.capacity
        assert fit.kv_tokens // layout.dp * fit.kv_bytes_per_token <= fit.of("KV cache")
    if fit.ram:
        assert fit.ram_capacity is not None
        assert sum(share.bytes for share in fit.ram) <= fit.ram_capacity
    assert fit.context * -(-request.concurrency // layout.dp) * layout.dp <= fit.kv_tokens
    wanted = request.context if request.context is not None else request.min_context
    if wanted is not None:
        assert fit.context >= wanted


@settings(max_examples=100, deadline=None)
@given(requests, nodes(), st.integers(1, 400), st.integers(0, 2048))
def test_more_memory_never_hurts(
    request: Request, group: tuple[Node, ...], more_gib: int, more_ram: int
) -> None:
    """What fits still fits with more memory on every GPU and in every host."""
    if not isinstance(decided(request, Inventory(nodes=group)), Plan):
        return
    larger = tuple(
        Node(
            name=node.name,
            gpu=node.gpu,
            gpus=node.gpus,
            gpu_memory=node.gpu_memory + more_gib * GIB,
            generation=node.generation,
            domain=node.domain,
            ram=node.ram + more_ram * GIB if node.ram is not None else None,
        )
        for node in group
    )

    assert isinstance(decided(request, Inventory(nodes=larger)), Plan)


@settings(max_examples=100, deadline=None)
@given(requests, nodes())
def test_asking_for_less_never_hurts(request: Request, group: tuple[Node, ...]) -> None:
    """What fits for many requests at once fits for one."""
    if not isinstance(decided(request, Inventory(nodes=group)), Plan):
        return
    import msgspec  # noqa: PLC0415

    one = msgspec.structs.replace(request, concurrency=1)
    assert isinstance(decided(one, Inventory(nodes=group)), Plan)
