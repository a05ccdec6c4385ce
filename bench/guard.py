"""What the guard costs beside going direct, and LiteLLM's proxy in the same run.

    python -m bench.guard [--seconds 5] [--conversations 100000]

The engine is a stub that answers at once, or after as long as a fast one takes for its first word.
It and the load share one core, what is measured has the other for itself. Latency is of one request
after the other; throughput of 64 at once. Goals: 1 ms more at the median, 0.95 of the requests of
an engine that thinks for some 50 ms, and memory that 100,000 conversations do not grow. The exit
code is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.contract.servers import free_port
from tests.middleware import runs

_LATENCY, _SHARE, _GROWTH = 1.0, 0.95, 1.5
_THINK = 0.05
_AT_ONCE = 64
_MESSAGE = {"role": "assistant", "content": "391", "reasoning": "17 times 20 is 340. " * 40}
_ANSWER = json.dumps(
    {"id": "x", "object": "chat.completion", "created": 1, "model": "kimi-k2.7-code",
     "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}}
).encode()  # fmt: skip


# --- the engine --------------------------------------------------------------------------


def engine(port: int, think: float) -> None:
    """Serve one answer for ever."""
    import uvicorn  # noqa: PLC0415

    headers = [(b"content-type", b"application/json"),
               (b"content-length", str(len(_ANSWER)).encode())]  # fmt: skip

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        while (await receive()).get("more_body"):
            pass
        if think and scope["method"] == "POST":
            # Why not always the same: 64 that go in step are a load that no users make.
            await asyncio.sleep(think * random.uniform(0.8, 1.2))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ANSWER})

    uvicorn.run(app, port=port, log_level="error", lifespan="off", http="httptools", loop="uvloop")


@contextmanager
def process(core: int, argv: Sequence[str], url: str, env: dict[str, str]) -> Iterator[int]:
    """Run a server on one core until the end; yields its pid once it answers."""
    words = ["taskset", "-c", str(core), *argv]
    with subprocess.Popen(
        words, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            runs.until_it_answers(server, url)
            yield server.pid
        finally:
            server.terminate()
            server.wait(30)


# --- the load ----------------------------------------------------------------------------


class Load:
    """Connections that are kept, over bare sockets: it must cost less than what it measures."""

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._key, self._model = key, model

    def request(self, text: str) -> bytes:
        """Return a chat request of one question, as bytes."""
        messages = [{"role": "user", "content": text}]
        body = json.dumps({"model": self._model, "messages": messages}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def one_by_one(self, seconds: float) -> list[float]:
        """Return how many seconds each request took, one after the other."""
        connection = await asyncio.open_connection(*self._address)
        data, took = self.request("What is 17 times 23?"), []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await _ask(connection, data)
            took.append(time.perf_counter() - began)
        connection[1].close()
        return took

    async def at_once(self, seconds: float) -> float:
        """Return how many requests a second are answered, _AT_ONCE at a time."""
        data, count = self.request("What is 17 times 23?"), 0
        end = time.perf_counter() + seconds

        async def work() -> None:
            nonlocal count
            connection = await asyncio.open_connection(*self._address)
            while time.perf_counter() < end:
                await _ask(connection, data)
                count += 1
            connection[1].close()

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        return count / seconds

    async def conversations(self, first: int, last: int) -> None:
        """Ask a question of its own for each number."""
        numbers = iter(range(first, last))

        async def work() -> None:
            connection = await asyncio.open_connection(*self._address)
            for number in numbers:
                await _ask(connection, self.request(f"This is conversation {number}."))
            connection[1].close()

        await asyncio.gather(*(work() for _ in range(16)))


async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> None:
    reader, writer = connection
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the answer was {head[:60]!r}")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
            return
    while size := int((await reader.readline()).strip(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


# --- the numbers -------------------------------------------------------------------------


def percent(values: list[float], share: float) -> float:
    """Return the value in ms that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def resident(pid: int) -> int:
    """Return the bytes of memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def guard(upstream: int, port: int, *words: str) -> list[str]:
    """Return the words that run the guard."""
    argv = [sys.executable, "-m", "kimideploy", "guard", "run", f"http://127.0.0.1:{upstream}"]
    return [*argv, "--port", str(port), "--reads", "reasoning", *words]


def litellm(folder: Path, upstream: int, port: int) -> list[str]:
    """Return the words that run LiteLLM's proxy."""
    config = folder / "litellm.yaml"
    params = {"model": "hosted_vllm/kimi-k2.7-code", "api_key": "none",
              "api_base": f"http://127.0.0.1:{upstream}/v1"}  # fmt: skip
    document = {"model_list": [{"model_name": "kimi-k2.7-code", "litellm_params": params}]}
    config.write_text(json.dumps(document), encoding="utf-8")
    words = [str(runs.home() / "bin" / "litellm"), "--config", str(config)]
    return [*words, "--host", "127.0.0.1", "--port", str(port)]


def measured(name: str, url: str, key: str, seconds: float) -> tuple[float, float, float]:
    """Print and return p50, p99 in ms and requests a second."""
    load = Load(url, key, "kimi-k2.7-code")
    asyncio.run(load.one_by_one(0.5))
    took = asyncio.run(load.one_by_one(seconds))
    rate = asyncio.run(load.at_once(seconds))
    p50, p99 = percent(took, 0.5), percent(took, 0.99)
    print(
        f"  {name:<10} p50 {p50:8.2f} ms   p99 {p99:8.2f} ms   {rate:8.0f} requests/s", flush=True
    )
    return p50, p99, rate


def compare(think: float, seconds: float) -> tuple[float, float]:
    """Print all three for an engine that thinks so long; return the guard's extra ms and share."""
    print(f"an engine that thinks for {think * 1000:.0f} ms, {_AT_ONCE} at once", flush=True)
    up, door, other = free_port(), free_port(), free_port()
    words = [sys.executable, "-m", "bench.guard", "--engine", str(up), "--think", str(think)]
    env = {"LITELLM_MASTER_KEY": runs.KEY}
    with (
        tempfile.TemporaryDirectory() as folder,
        process(0, words, f"http://127.0.0.1:{up}/health", {}),
    ):
        direct = measured("direct", f"http://127.0.0.1:{up}", "none", seconds)
        url = f"http://127.0.0.1:{door}"
        with process(1, guard(up, door), f"{url}/metrics", {}):
            ours = measured("guard", url, "none", seconds)
        url = f"http://127.0.0.1:{other}"
        peer = litellm(Path(folder), up, other)
        with process(1, peer, f"{url}/health/liveliness", env):
            theirs = measured("LiteLLM", url, runs.KEY, seconds)
    extra, share = ours[0] - direct[0], ours[2] / direct[2]
    print(
        f"  guard: {extra:+.2f} ms at p50, {ours[1] - direct[1]:+.2f} at p99,"
        f" {share:.2f} of direct;"
        f" LiteLLM: {theirs[0] - direct[0]:+.2f}, {theirs[1] - direct[1]:+.2f},"
        f" {theirs[2] / direct[2]:.2f}",
        flush=True,
    )
    return extra, share


def memory(count: int) -> float:
    """Print and return how much a guard that repairs grows over *count* conversations."""
    up, door = free_port(), free_port()
    words = [sys.executable, "-m", "bench.guard", "--engine", str(up), "--think", "0"]
    url = f"http://127.0.0.1:{door}"
    argv = guard(up, door, "--missing", "repair", "--memory", "16")
    load = Load(url, "none", "kimi-k2.7-code")
    with (
        process(0, words, f"http://127.0.0.1:{up}/health", {}),
        process(1, argv, f"{url}/metrics", {}) as pid,
    ):
        first = count // 5
        asyncio.run(load.conversations(0, first))
        before = resident(pid)
        asyncio.run(load.conversations(first, count))
        after = resident(pid)
    print(
        f"a memory of 16 MiB: {before / 1e6:.0f} MB after {first:,} conversations,"
        f" {after / 1e6:.0f} MB after {count:,}",
        flush=True,
    )
    return after / before


def main() -> None:
    """Measure, or be the engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--think", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine is not None:
        engine(options.engine, options.think)
        return
    os.sched_setaffinity(0, {0})
    extra, _ = compare(0, options.seconds)
    _, share = compare(_THINK, options.seconds)
    growth = memory(options.conversations)
    missed = extra > _LATENCY or share < _SHARE or growth > _GROWTH
    print("a goal is missed" if missed else "all goals are met")
    sys.exit(missed)


if __name__ == "__main__":
    main()
