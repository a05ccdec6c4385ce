"""How long the whole doctor takes on this machine, with weights and an engine to look at.

    python -m bench.doctor [--runs N]

It is run as a program, its start included. The goal is 1.5 s. `nvidia-smi -q`, which says less, is
timed in the same run where it is there.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from kimideploy.engines import complete
from kimideploy.planning.types import encode
from tests.flows import place
from tests.unit.engines.plans import CATALOG, plan

GOAL = 1.5
#: bytes of the weights that are read, so that the rate is measured
SIZE = 1 << 30


def main() -> None:
    """Print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="kimideploy-bench-") as name:
        folder = Path(name)
        weights = place.weights(folder / "weights")
        (weights / "model-00001-of-00002.safetensors").write_bytes(b"\0" * SIZE)
        venv = place.environment(folder / "venv")
        saved = folder / "plan.json"
        saved.write_bytes(encode(complete(plan(model_path=str(weights)), CATALOG)))
        words = [sys.executable, "-m", "kimideploy", "doctor", "--json"]
        whole = _median([*words, "--plan", str(saved), "--venv", str(venv)], runs)
    print(f"kimideploy doctor  {whole:.2f} s  (goal {GOAL} s, {whole / GOAL:.2f} of it)")
    smi = shutil.which("nvidia-smi")
    if smi is not None:
        theirs = _median([smi, "-q"], runs)
        print(f"nvidia-smi -q      {theirs:.2f} s  (ratio {whole / theirs:.2f})")


def _median(argv: Sequence[str], runs: int) -> float:
    taken = []
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
