"""Build the judges, ask one, find a real engine's programs, or record what vLLM answers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.judges import JUDGES, SERVERS
from tests.judges.record import RUNS, record

USAGE = """\
python -m tests.judges build [NAME…]
python -m tests.judges parse NAME -- ARGV…
python -m tests.judges path vllm|llamacpp
python -m tests.judges record [tiny|scripted|llamacpp]"""
LOGS = Path(__file__).resolve().parent / "logs"


def say(line: str) -> None:
    """Print one line of talk, at once."""
    print(line, file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Return the exit code: 0 done or accepted, 1 refused, 2 not understood."""
    match words:
        case ["build", *names] if set(names) <= set(JUDGES):
            for name in names or JUDGES:
                JUDGES[name].build(say)
            return 0
        case ["parse", name, "--", *argv] if name in JUDGES:
            parsed = JUDGES[name].parse(argv)
            print(json.dumps(asdict(parsed), indent=1))
            return 0 if parsed.ok else 1
        case ["path", name] if name in SERVERS:
            print(SERVERS[name].bin_dir)
            return 0
        case ["record", *names] if set(names) <= set(RUNS):
            for name in names or RUNS:
                engine = SERVERS[RUNS[name].engine]
                engine.build(say)
                record(engine.bin_dir, LOGS, RUNS[name], say)
            return 0
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
