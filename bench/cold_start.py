"""How long a command takes before it has done anything, against `hf --help` in the same run.

    python -m bench.cold_start [ROUNDS]

Each round runs every command once, in turn, so that a slow moment hits all of them; the best
time of each counts. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

GOALS = {
    ("kimideploy", "--help"): 0.35,
    ("kimideploy", "plan", "--hardware", "8xH200"): 0.5,
}
REFERENCE = ("hf", "--help")
ROUNDS = 15


def main() -> int:
    """Print best times, ratios and goals; return 0 if every goal is met."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    commands = [REFERENCE, *GOALS]
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(rounds):
        for command in commands:
            best[command] = min(best[command], seconds(command))
    print(f"best of {rounds}, in turn")
    print(f"{best[REFERENCE] * 1000:6.0f} ms  {' '.join(REFERENCE)}")
    missed = 0
    for command, goal in GOALS.items():
        ratio = best[command] / best[REFERENCE]
        missed += ratio > goal
        verdict = "met" if ratio <= goal else "MISSED"
        print(
            f"{best[command] * 1000:6.0f} ms  {' '.join(command)}"
            f"  = {ratio:.2f} x, goal {goal:.2f}: {verdict}"
        )
    return 1 if missed else 0


def seconds(command: tuple[str, ...]) -> float:
    """Return the wall time of *command*, which stands beside this Python."""
    program = Path(sys.executable).parent / command[0]
    start = time.perf_counter()
    subprocess.run([program, *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
