"""The probe: what this machine is, as one JSON object on stdout (`kimideploy.facts/1`).

Its files need only the standard library of Python 3.8 and each other; `script` joins them to one
program that can be piped to `python3 -` over SSH. `pynvml` is used where it is installed,
`nvidia-smi` where it is not. Every source is asked on its own thread until a deadline. A source
that fails, refuses or hangs becomes an entry of `unknown` with its reason; the probe never fails.

The schema is kimideploy/facts/types.py. All sizes are bytes. What is not there is unknown.
"""

import ast
import os

from kimideploy.facts.probe.main import probe

__all__ = ["probe", "script"]

#: the files in the order in which they are joined: each needs only those before it
FILES = (
    "base",
    "system",
    "cpu",
    "memory",
    "kernel",
    "limits",
    "disks",
    "ports",
    "network",
    "services",
    "engines",
    "folder",
    "reach",
    "vendor",
    "nvml",
    "nvidia_smi",
    "rocm_smi",
    "gpus",
    "main",
)
_HEAD = """\
# The probe of kimideploy, joined from its files: it prints what this machine is, as JSON.
import sys

# Why: the folder of this file, or the one it was piped from, may hold a `types.py` of its own.
del sys.path[0]
"""


def script() -> str:
    """Return the probe as one program for `python3 -`."""
    folder = os.path.dirname(os.path.abspath(__file__))
    return "\n\n".join([_HEAD, *(alone(os.path.join(folder, name + ".py")) for name in FILES)])


def alone(path: str) -> str:
    """Return the text of a file without what it imports from the others."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kimideploy."):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (
                (node.end_lineno or node.lineno) - node.lineno + 1
            )
    return "\n".join(lines)
