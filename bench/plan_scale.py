"""How long a plan takes, from 8 to 10,000 GPUs, and whether that grows no faster than linearly.

    python -m bench.plan_scale

Goal: 10,000 GPUs in at most one second.
"""

from __future__ import annotations

import sys
import time

from kimideploy.catalog.load import load_catalog
from kimideploy.facts.hardware import parse_hardware
from kimideploy.planning.decide import decide
from kimideploy.planning.inventory import inventory_from_hardware
from kimideploy.planning.types import Request

NODES = (1, 10, 100, 1250)
GOAL_SECONDS = 1.0
ROUNDS = 5


def seconds(hardware: str, request: Request) -> float:
    """Return the best of a few rounds, inventory and decision together."""
    catalog = load_catalog()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        decide(request, inventory_from_hardware(parse_hardware(hardware), catalog), catalog)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    """Print the table; exit 1 if the goal is missed."""
    worst = 0.0
    for what, gpu, request in (
        ("a plan", "H200", Request()),
        ("a no with its ways out", "A100-80GB", Request(tier="int4-a100")),
    ):
        print(f"{what}: {gpu}")
        for nodes in NODES:
            took = seconds(f"{nodes}x8x{gpu}", request)
            each = took / nodes / 8 * 1e6
            print(f"  {nodes * 8:>6} GPUs  {took * 1000:8.1f} ms  {each:8.1f} µs a GPU")
            worst = max(worst, took)
    said = "met" if worst <= GOAL_SECONDS else "missed"
    print(f"goal: 10,000 GPUs ≤ {GOAL_SECONDS:.0f} s: {said}")
    return 0 if worst <= GOAL_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
