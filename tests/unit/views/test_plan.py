"""The view of a decision, against values made by hand."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from kimideploy.planning.types import (
    Candidate,
    Fit,
    Inventory,
    Launch,
    Layout,
    Node,
    NoFit,
    Notice,
    Pins,
    Plan,
    Rejection,
    Request,
    Share,
    WayOut,
)
from kimideploy.quantities import GIB
from kimideploy.views.plan import command, shown
from kimideploy.views.terminal import Terminal

PLAIN = Terminal(width=80, colour=False, unicode=True)
CANDIDATE = Candidate(
    tier="int4-h200",
    checkpoint="int4",
    format="int4",
    engine="vllm",
    layout=Layout(tp=8),
    kv_dtype="bf16",
    gpu="h200",
    nodes=1,
    gpus_per_node=8,
)
FIT = Fit(
    verdict="yes",
    capacity=100 * GIB,
    budget=90 * GIB,
    memory_fraction=0.9,
    shares=(
        Share("routed experts", 50 * GIB),
        Share("absorbed", GIB // 8, guess=True),
        Share("KV cache", 40 * GIB - GIB // 8),
        Share("headroom", 10 * GIB),
    ),
    kv_bytes_per_token=70_272,
    kv_tokens=600_000,
    context=262_144,
    max_concurrency=2.29,
)
NODE = Node(name="node0", gpu="h200", gpus=8, gpu_memory=100 * GIB, generation="hopper", domain=8)
REJECTION = Rejection(
    CANDIDATE, rule="weights", reason="the weights are too large", need=60 * GIB, have=40 * GIB
)
LAUNCH = Launch(node=0, argv=("vllm", "serve"), env=(), host="127.0.0.1", port=8000)
PLAN = Plan(
    request=Request(),
    inventory=Inventory(nodes=(NODE,)),
    candidate=CANDIDATE,
    fit=FIT,
    why=("it is the reference machine",),
    pins=Pins(
        repo="moonshotai/Kimi-K2.7-Code",
        revision=None,
        engine_version="0.32.0",
        image=None,
        requirements=(),
        profiles="0" * 64,
        kimideploy="0.1.0",
    ),
    served_name="kimi-k2.7-code",
    copies=1,
    launches=(LAUNCH,),
)
NO_FIT = NoFit(
    request=Request(),
    inventory=Inventory(nodes=(NODE,)),
    reason="the weights are too large",
    nearest=REJECTION,
    ways_out=(
        WayOut("two nodes", flags=("--hardware", "2x8xH200"), proved=True),
        WayOut("--min-context 8192", flags=("--min-context", "8192")),
    ),
    fit=msgspec.structs.replace(FIT, verdict="no", short=3 * GIB),
)


def bars(text: str, block: str = "█") -> list[tuple[int, int]]:
    """Return where each bar of *text* begins and ends."""
    lines = [line for line in text.splitlines() if line.endswith(block)]
    return [(line.index(block), len(line)) for line in lines]


def test_stack_is_one_bar_in_pieces() -> None:
    """Each cause's bar begins where the one above ends, and the last ends at the edge."""
    found = bars(shown(PLAN, PLAIN))

    assert 4 == len(found)
    assert all(begin in {end, end - 1} for (_, end), (begin, _) in pairwise(found))
    assert 80 == found[-1][1]


def test_stack_says_bytes_and_percent() -> None:
    """Every cause has its GiB, labelled, its share of the card, and a mark if it is a guess."""
    text = shown(PLAN, PLAIN)

    assert "Memory of the fullest GPU, 100.00 GiB\n" in text
    assert "  routed experts               50.00 GiB  50.0% █" in text
    assert "~ absorbed                      0.12 GiB   0.1% " in text
    assert "  ~ a guess: nobody measured or stated it\n" in text


def test_stack_that_overflows_stays_in_its_line() -> None:
    """What needs more than the card is drawn to scale, not beyond the edge."""
    fit = msgspec.structs.replace(FIT, verdict="no", shares=(Share("routed experts", 300 * GIB),))

    text = shown(msgspec.structs.replace(PLAN, fit=fit), PLAIN)

    assert "300.0%" in text
    assert 80 >= max(len(line) for line in text.splitlines())


def test_no_weights_in_host_memory_no_second_stack() -> None:
    """Host memory is drawn only where experts live there."""
    ram = msgspec.structs.replace(
        FIT, ram=(Share("routed experts", 300 * GIB),), ram_capacity=400 * GIB
    )

    assert "Host memory" not in shown(PLAN, PLAIN)
    assert "Host memory of a node, 400.00 GiB" in shown(
        msgspec.structs.replace(PLAN, fit=ram), PLAIN
    )


def test_ascii_terminal_gets_ascii() -> None:
    """Where the encoding has no other letters, the same is said in ASCII."""
    text = shown(PLAN, Terminal(width=80, colour=False, unicode=False))

    assert text.isascii()
    assert "int4 - vllm - 8xh200 TP8 - KV bf16" in text
    assert 4 == len(bars(text, "#"))


@pytest.mark.parametrize("colour", [True, False])
def test_colour_is_asked_for(colour: bool) -> None:
    """Colour codes are there if they are wanted, and the words are the same."""
    text = shown(PLAN, Terminal(width=80, colour=colour))

    assert colour == ("\x1b[" in text)


@pytest.mark.parametrize("decision", [PLAN, NO_FIT])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_keep_to_the_width(decision: Plan | NoFit, width: int) -> None:
    """No line is wider than the terminal."""
    text = shown(decision, Terminal(width=width))

    assert width >= max(len(line) for line in text.splitlines())


def test_cache_in_tokens_and_requests() -> None:
    """The cache is told in tokens, and in requests of the planned length."""
    text = shown(PLAN, PLAIN)

    assert "  KV cache  600,000 tokens, 2.29 requests of that length\n" in text
    assert "  Context   262,144 tokens a request\n" in text


def test_tight_plan_says_so() -> None:
    """A plan that fits by the lowest overhead only does not look like one that fits."""
    tight = msgspec.structs.replace(PLAN, fit=msgspec.structs.replace(FIT, verdict="tight"))

    assert shown(tight, PLAIN).startswith("kimi-k2.7-code only just fits: int4 · vllm")


def test_warning_has_its_link() -> None:
    """A warning stands with the address of its source."""
    warned = msgspec.structs.replace(
        PLAN, warnings=(Notice("slow", "this is slow", link="https://example.org/1"),)
    )

    assert "Warnings\n  ! this is slow\n    https://example.org/1\n" in shown(warned, PLAIN)


def test_rejections_of_a_kind_share_a_line() -> None:
    """One line stands for a checkpoint, engine and rule: its nearest, with the count."""
    far = msgspec.structs.replace(REJECTION, need=400 * GIB)
    other = msgspec.structs.replace(REJECTION, rule="tp-heads", reason="64 % 3", need=64, have=3)
    plan = msgspec.structs.replace(PLAN, rejected=(far, REJECTION, other))

    text = shown(plan, PLAIN)

    assert "int4 · vllm · weights ×2: the weights are too large (60.00 GiB needed," in text
    assert "400.00" not in text
    assert "int4 · vllm · tp-heads: 64 % 3\n" in text


def test_all_shows_each_rejection_with_its_way_out() -> None:
    """--all takes the lines apart again."""
    rejected = (REJECTION, msgspec.structs.replace(REJECTION, way_out="two nodes"))

    text = shown(msgspec.structs.replace(PLAN, rejected=rejected), PLAIN, every=True)

    assert "Rejected, 2\n" in text
    assert 2 == text.count("  - int4 · vllm · 8×h200 TP8 · KV bf16\n")
    assert 1 == text.count("out: two nodes")


def test_many_nodes_show_the_first_two() -> None:
    """A command is shown for the head and the first follower; --all shows each."""
    launches = tuple(msgspec.structs.replace(LAUNCH, node=n) for n in range(16))
    plan = msgspec.structs.replace(PLAN, launches=launches)

    assert 2 == shown(plan, PLAIN).count("\nCommand on node ")
    assert "… and 14 more nodes; --all shows their commands" in shown(plan, PLAIN)
    assert 16 == shown(plan, PLAIN, every=True).count("\nCommand on node ")


def test_no_fit_has_reason_numbers_and_ways_out() -> None:
    """A no says why, what came nearest and by how much, and which ways out were proved."""
    text = shown(NO_FIT, PLAIN)

    assert text.startswith("Nothing fits: the weights are too large\n")
    assert "the weights are too large (60.00 GiB needed, 40.00 GiB there)\n" in text
    assert "Memory of the fullest GPU, 100.00 GiB: 3.00 GiB short\n" in text
    assert "  + two nodes\n    --hardware 2x8xH200\n" in text
    assert "  - --min-context 8192\n" in text


def test_no_fit_without_a_candidate() -> None:
    """A no without anything near it is still shown."""
    text = shown(NoFit(Request(), Inventory(()), "no node", None, ()), PLAIN)

    assert "Nothing fits: no node\n" == text


def test_flag_keeps_its_value() -> None:
    """A line never ends between a flag and its value."""
    argv = ("vllm", "serve", *[word for n in range(12) for word in (f"--option-{n}", str(n))])
    lines = command(msgspec.structs.replace(LAUNCH, argv=argv), 80)

    assert all(line.endswith(" \\") for line in lines[:-1])
    assert 80 >= max(map(len, lines))
    assert [] == [line for line in lines if line.removesuffix(" \\").split()[-1][:2] == "--"]
