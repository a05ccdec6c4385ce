"""The two servers the contract is asked of, each a real process on a port of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kimideploy.rehearsal.gguf import write_gguf
from kimideploy.rehearsal.nano import write_nano
from tests.contract.cases import MODEL, Case
from tests.judges import LLAMACPP, VLLM

FLAGS = (
    "--served-model-name", MODEL, "--host", "127.0.0.1", "--trust-remote-code",
    "--max-model-len", "8192", "--tool-call-parser", "kimi_k2", "--enable-auto-tool-choice",
    "--reasoning-parser", "kimi_k2",
)  # fmt: skip
#: seconds the real engine may take to come up on two busy cores
_PATIENCE = 420


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Endpoint:
    """A server under test."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def ask(self, case: Case) -> Answer:
        """Send the case's request and return the whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": case.kind, **case.headers} if case.body is not None else {}
        try:
            connection.request(case.method, case.path, body=case.body, headers=headers)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, named, reply.read())
        finally:
            connection.close()


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def stand_in(
    argv: Sequence[str],
    *options: str,
    env: dict[str, str] | None = None,
    errors: Path = Path(os.devnull),
    health: int = 200,
) -> Iterator[Endpoint]:
    """Run the stand-in with *argv* and a port of its own until /health answers *health*.

    What it writes to standard error goes to the file *errors*.
    """
    port = free_port()
    words = [*argv, "--port", str(port)]
    command = [sys.executable, "-m", "kimideploy.rehearsal", "--load-seconds", "0.1", *options]
    command = [*command, "--", *words]
    with _running(command, env or {}, "stand-in", port, errors, health) as endpoint:
        yield endpoint


@contextmanager
def real_vllm(folder: Path, flags: Sequence[str] = FLAGS) -> Iterator[Endpoint]:
    """Run the real vLLM with *flags* on the nano Kimi in *folder* until it answers."""
    write_nano(folder / "nano")
    port = free_port()
    VLLM.build(print)
    program = VLLM.bin_dir / "vllm"
    words = [
        str(program), "serve", str(folder / "nano"), *flags, "--port", str(port),
        "--tokenizer-mode", "hf",
    ]  # fmt: skip
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with _running(words, env, "vllm", port) as endpoint:
        yield endpoint


@contextmanager
def real_llama(folder: Path) -> Iterator[Endpoint]:
    """Run the real llama-server on the nano Kimi's GGUF in *folder* until it answers."""
    write_gguf(folder / "nano.gguf")
    port = free_port()
    LLAMACPP.build(print)
    words = [
        str(LLAMACPP.bin_dir / "llama-server"), "--model", str(folder / "nano.gguf"), "--alias",
        MODEL, "--jinja", "--ctx-size", "65536", "--parallel", "8", "--host", "127.0.0.1",
        "--port", str(port), "--reasoning-format", "deepseek", "--temp", "1.0", "--top-p", "0.95",
    ]  # fmt: skip
    with _running(words, {}, "llama-server", port) as endpoint:
        yield endpoint


@contextmanager
def _running(  # noqa: PLR0917
    words: Sequence[str],
    env: dict[str, str],
    name: str,
    port: int,
    errors: Path = Path(os.devnull),
    health: int = 200,
) -> Iterator[Endpoint]:
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            words,
            env=os.environ | env,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    endpoint = Endpoint(name, port, process)
    try:
        _wait(endpoint, health)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(endpoint: Endpoint, health: int) -> None:
    """Return when /health says *health*; the sleep is between two knocks at its door."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if endpoint.process.poll() is not None:
            raise AssertionError(f"{endpoint.name} ended with {endpoint.process.returncode}")
        try:
            if endpoint.ask(Case("health", "GET", "/health", 200)).status == health:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{endpoint.name} did not come up in {_PATIENCE} s")
