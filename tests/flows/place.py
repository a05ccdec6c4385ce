"""A place to serve in: an environment with an engine in it, weights, a free port."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from kimideploy.engines import complete
from kimideploy.planning.types import Plan, encode
from tests.unit.engines.plans import CATALOG, plan

ENGINE = Path(__file__).parent / "engine.py"
VERSION = "0.32.0"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


#: what no machine of a test has: eight GPUs, and room for a terabyte of weights
SMALL = ("--skip-check=gpu-count", "--skip-check=disk-weights")


def environment(folder: Path, *, version: str = VERSION) -> Path:
    """Return a Python environment in *folder* in which the test engine is installed as vLLM."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ENGINE} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    site = f"python{sys.version_info.major}.{sys.version_info.minor}"
    facts = folder / "lib" / site / "site-packages" / f"vllm-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n\n", encoding="utf-8")
    (folder / "pyvenv.cfg").write_text("", encoding="utf-8")
    return folder


def weights(folder: Path, *, shards: int = 2) -> Path:
    """Return *folder* with a complete, tiny checkpoint in it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    for name in names:
        header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    index = {"weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def planned(folder: Path, **request: object) -> Plan:
    """Return a plan of vLLM on the weights in *folder*, listening on a free port."""
    asked = {"model_path": str(folder), "port": free_port()} | request
    return complete(plan(**asked), CATALOG)  # type: ignore[arg-type]


def saved(found: Plan, path: Path) -> Path:
    """Return *path* with the plan in it."""
    path.write_bytes(encode(found))
    return path


def is_alive(pid: int) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def cli(*words: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment that run the command line of this checkout."""
    return [sys.executable, "-m", "kimideploy", *words], {**os.environ, "NO_COLOR": "1", **env}


def descendants(pid: int) -> list[int]:
    """Return every process that *pid* or a child of it has started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(words[1]), []).append(int(path.parent.name))
    found, pending = [], [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found
