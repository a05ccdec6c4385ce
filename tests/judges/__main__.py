"""Build the judges, or ask one: see the package."""

from __future__ import annotations

import dataclasses
import json
import sys

from tests.judges import JUDGES


def main(words: list[str]) -> int:
    """Carry out `build [NAME…]`, `parse NAME -- ARGV…` or `path NAME`."""
    match words:
        case ["build", *names]:
            for name in names or list(JUDGES):
                print(f"{name}: {JUDGES[name].build(print)}", flush=True)
            return 0
        case ["path", name]:
            print(JUDGES[name].build(lambda text: print(text, file=sys.stderr)))
            return 0
        case ["parse", name, "--", *argv]:
            parsed = JUDGES[name].parse(argv)
            print(json.dumps(dataclasses.asdict(parsed), indent=2, default=str))
            return 0 if parsed.ok else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
