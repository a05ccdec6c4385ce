"""The stand-in as a process: it comes up, answers, dies as told, and leaves nothing behind."""

from __future__ import annotations

import http.client
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.cases import CHAT, HELLO, TOOL, Case, chat
from tests.contract.servers import FLAGS, Endpoint, free_port, stand_in

ROOT = Path(__file__).parents[3]
STAND_IN = [sys.executable, "-m", "kimideploy.rehearsal"]
VLLM = ["vllm", "serve", "m", *FLAGS]
LLAMA = ["llama-server", "--model", "m.gguf", "--alias", "kimi-k2.7-code"]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in of this module writes its standard error."""
    return tmp_path_factory.mktemp("stand-in") / "errors"


@pytest.fixture(scope="module")
def vllm(errors: Path) -> Iterator[Endpoint]:
    """A stand-in for vLLM."""
    with stand_in(VLLM, errors=errors) as endpoint:
        yield endpoint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with 0, and its port is free again."""
    with stand_in(VLLM) as endpoint:
        endpoint.process.send_signal(number)
        assert endpoint.process.wait(10) == 0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", endpoint.port))


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("oom", 1, "CUDA out of memory"),
        ("no-kv", 1, "No available memory for the cache blocks"),
        ("version", 1, "are not supported"),
        ("port", 1, "Address already in use"),
        ("nccl", 1, "NCCL error"),
        ("exit0", 0, "fatal error"),
    ],
)
def test_it_dies_as_told(way: str, code: int, said: str) -> None:
    """Each way to fail ends the load with the engine's own words and exit code."""
    words = [sys.executable, "-m", "kimideploy.rehearsal", "--load-seconds", "0", "--fail", way]
    done = subprocess.run(
        [*words, "--", *VLLM], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == code
    assert said in done.stdout
    assert "Application startup complete" not in done.stdout


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\xff\xfe\r\n\r\n",
    ],
)
def test_hostile_requests(raw: bytes, vllm: Endpoint, errors: Path) -> None:
    """A request that is no request is refused, and the next one is answered."""
    with socket.create_connection(("127.0.0.1", vllm.port), timeout=10) as hostile:
        hostile.sendall(raw)
        hostile.shutdown(socket.SHUT_WR)
        assert hostile.recv(4096).startswith(b"HTTP/1.1 4")

    assert 200 == vllm.ask(Case("q", "POST", CHAT, 200, chat())).status
    assert b"" == errors.read_bytes()


@pytest.mark.parametrize("depth", [500, 900, 990, 100_000])
def test_deep_json(depth: int, vllm: Endpoint, errors: Path) -> None:
    """JSON nested beyond reason is refused with 400, wherever it lies."""
    deep = b"[" * depth + b"]" * depth
    for body in (b'{"messages": ' + deep + b"}", chat(messages=[5]).replace(b"5", deep)):
        assert 400 == vllm.ask(Case("deep", "POST", CHAT, 400, body)).status
    body = chat(nonsense="here").replace(b'"here"', deep)
    assert vllm.ask(Case("deep", "POST", CHAT, 400, body)).status in {200, 400}
    assert b"" == errors.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{" * 10_000,
        b'{"messages": "\xff"}',
        b'{"model": NaN, "messages": [{"role": "user", "content": 5}]}',
        chat(max_tokens=-1),
        chat(max_tokens=1e400),
        chat(temperature=-(10**400)),
        chat(n=10**9),
        chat(tools={"no": "list"}),
        chat(tools=[5]),
        chat(tools=[TOOL], tool_choice={"type": "function"}),
        chat(messages=[]),
        chat(messages=[5]),
        chat(messages=[{"role": "assistant", "tool_calls": 5}]),
        chat(messages=[{"role": "user", "content": "x" * (8 << 20)}]),
    ],
    ids=lambda body: str(body[:60]),
)
def test_nasty_bodies(body: bytes, vllm: Endpoint, errors: Path) -> None:
    """What no engine understands is refused with 400, and nothing is said on standard error."""
    assert 400 == vllm.ask(Case("nasty", "POST", CHAT, 400, body)).status
    assert b"" == errors.read_bytes()


def test_a_body_larger_than_any(vllm: Endpoint, errors: Path) -> None:
    """A body of 40 MiB is not kept, and its sender hears of it."""
    assert 413 == vllm.ask(Case("huge", "POST", CHAT, 413, b" " * (40 << 20))).status
    assert b"" == errors.read_bytes()


def test_half_a_character(vllm: Endpoint) -> None:
    """Text that UTF-8 can't hold comes back as text that it can, streamed and whole."""
    lone = [*HELLO, {"role": "tool", "tool_call_id": "functions.f:0", "content": "\ud800"}]
    for stream in (True, False):
        wanted = chat(messages=lone, max_tokens=512, stream=stream)
        assert "The tool" in vllm.ask(Case("lone", "POST", CHAT, 200, wanted)).body.decode()


def test_a_body_in_chunks(vllm: Endpoint) -> None:
    """A body whose length is not told beforehand is read."""
    body = chat()
    connection = http.client.HTTPConnection("127.0.0.1", vllm.port, timeout=10)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", CHAT, iter([body[:9], body[9:]]), headers, encode_chunked=True)
    assert 200 == connection.getresponse().status
    connection.close()


def test_a_client_that_leaves(vllm: Endpoint, errors: Path) -> None:
    """A client that goes away in the middle of a stream harms nobody."""
    body = chat(stream=True, max_tokens=512, n=64)
    head = f"POST {CHAT} HTTP/1.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", vllm.port), timeout=10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        client.recv(100)

    assert 200 == vllm.ask(Case("next", "POST", CHAT, 200, chat())).status
    assert b"" == errors.read_bytes()


@pytest.mark.parametrize(
    ("argv", "variable", "open_path", "error"),
    [
        (VLLM, "VLLM_API_KEY", "/health", {"error": "Unauthorized"}),
        (LLAMA, "LLAMA_API_KEY", "/v1/models", {
            "error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
        }),
    ],
    ids=["vllm", "llamacpp"],
)  # fmt: skip
def test_a_key(argv: list[str], variable: str, open_path: str, error: object) -> None:
    """With a key in its environment it refuses chats without it, as its engine words it."""
    key = {"Authorization": "Bearer s3cret"}
    with stand_in(argv, env={variable: "s3cret"}) as endpoint:
        without = endpoint.ask(Case("q", "POST", CHAT, 401, chat()))
        with_it = endpoint.ask(Case("q", "POST", CHAT, 200, chat(), headers=key))
        free = endpoint.ask(Case("open", "GET", open_path, 200))

    assert (401, error) == (without.status, without.json())
    assert (200, 200) == (with_it.status, free.status)


def test_a_port_in_use() -> None:
    """A port that someone holds is refused before anything is loaded."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = subprocess.run(
            [*STAND_IN, "--load-seconds", "60", "--", *VLLM, "--port", port],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    assert 1 == done.returncode
    assert "Address already in use" in done.stdout
    assert "Loading" not in done.stdout


@pytest.mark.parametrize(("argv", "status"), [(VLLM, None), (LLAMA, 503)], ids=["vllm", "llamacpp"])
def test_while_it_loads(argv: list[str], status: int | None) -> None:
    """vLLM holds its port and answers nobody, llama-server says that it loads; both end."""
    port = free_port()
    command = [*STAND_IN, "--load-seconds", "600", "--", *argv, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        endpoint = Endpoint("loading", port, process)  # type: ignore[arg-type]
        if status is None:
            with pytest.raises(ConnectionRefusedError):
                endpoint.ask(Case("health", "GET", "/health", 200))
        else:
            answer = endpoint.ask(Case("health", "GET", "/health", 503))
            assert (status, "Loading model") == (answer.status, answer.json()["error"]["message"])
        process.terminate()
        assert 0 == process.wait(10)


def test_it_starts_fast() -> None:
    """Nothing but the standard library is imported."""
    code = "import kimideploy.rehearsal.__main__, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    foreign = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert {"kimideploy", "__main__"} >= foreign


def test_a_connection_is_kept(vllm: Endpoint) -> None:
    """Two requests go over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", vllm.port, timeout=10)
    for _ in range(2):
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read()
    connection.close()
