"""The blocks of README.md that a command made.

    <!-- output: kimideploy --help -->
    ```text
    …
    ```

`python -m tests.cli.readme` runs each command and writes its block anew.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(
    r"<!-- output: (?P<command>[^\n]+?) -->\n```text\n(?P<text>.*?)```\n", re.DOTALL
)
_PORT = "8000"


@dataclass(frozen=True)
class Block:
    """A command, and what README.md says it prints."""

    command: str
    text: str


def blocks() -> list[Block]:
    """Return every block, in order."""
    found = _BLOCK.finditer(README.read_text(encoding="utf-8"))
    return [Block(match["command"], match["text"]) for match in found]


def output(command: str) -> str:
    """Return what *command* prints on both streams, in an empty home of its own."""
    program, *words = shlex.split(command)
    port = _free_port()
    if words[0] == "serve":
        words += ["--port", port]
    with tempfile.TemporaryDirectory() as home:
        kept = {"PATH": os.environ["PATH"], "HOME": home, "NO_COLOR": "1", "LANG": "C.UTF-8"}
        ended = subprocess.run(
            [sys.executable, "-m", program, *words],
            cwd=home,
            env={**kept, "PYTHONPATH": str(README.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
    text = ended.stdout.replace(home, "~")
    return text.replace(port, _PORT) if words[0] == "serve" else text


def lasting(text: str) -> str:
    """Return *text* without what differs between runs: progress, notes on this machine, times."""
    lines = [line for line in text.splitlines() if not line.startswith(("  · ", "  ! note"))]
    joined = "\n".join(lines)
    joined = re.sub(r"(pid|after) [0-9.]+", r"\1 N", joined)
    # Why: the code word is drawn anew each time, and takes as many tokens as it takes.
    return re.sub(r"\+[0-9]+ tokens", "+N tokens", joined)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def main() -> None:
    """Write every block anew that says something else."""
    text = README.read_text(encoding="utf-8")
    for block in blocks():
        head = f"<!-- output: {block.command} -->\n```text\n"
        fresh = output(block.command)
        if lasting(fresh) != lasting(block.text):
            text = text.replace(f"{head}{block.text}```", f"{head}{fresh}```")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
