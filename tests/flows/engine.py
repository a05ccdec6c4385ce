"""An engine for tests: vLLM's flags as far as they matter here, its log lines, its routes.

$TEST_ENGINE says how it behaves; `fine` is how it should. It takes no time to load.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kimideploy.rehearsal.sense import sense

MODE = os.environ.get("TEST_ENGINE", "fine")
_WORKER = (
    "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(f'worker {os.getpid()}', flush=True); time.sleep(600)"
)


def value(flag: str) -> str:
    """Return the word after *flag*."""
    return sys.argv[sys.argv.index(flag) + 1]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the message for *request*, spoilt as the mode wants it."""
    if "tools" not in request or request["messages"][-1]["role"] == "tool":
        said = sense(request["messages"], 0)
        if MODE == "no-parser":
            return {"content": f"<think>{said.reasoning}</think>{said.content}"}
        field = "reasoning_content" if MODE == "wrong-field" else "reasoning"
        return {"content": said.content, field: said.reasoning}
    call = {"name": "run_python", "arguments": json.dumps({"code": "print(1)"})}
    name = "call_0" if MODE == "wrong-id" else "functions.run_python:0"
    return {
        "content": None,
        "reasoning": "I need the tool.",
        "tool_calls": [{"id": name, "type": "function", "function": call}],
    }


class Routes(BaseHTTPRequestHandler):
    """/health, /v1/models and /v1/chat/completions."""

    def log_message(self, *_: object) -> None:
        """Say nothing about requests."""

    def do_GET(self) -> None:
        """Answer that it is healthy, or which model it serves."""
        name = "another" if MODE == "wrong-model" else value("--served-model-name")
        self.reply({"data": [{"id": name}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        """Answer a chat request, in one piece or in two."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "dies-asked":
            print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", flush=True)
            os._exit(1)
        message = answer(request)
        if not request.get("stream"):
            finish = "tool_calls" if "tool_calls" in message else "stop"
            self.reply({"choices": [{"message": message, "finish_reason": finish}]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for name, text in message.items():
            piece = {"choices": [{"delta": {name: text}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        last = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        self.wfile.write(f"data: {json.dumps(last)}\n\n".encode())
        if MODE != "breaks-off":
            self.wfile.write(b"data: [DONE]\n\n")

    def reply(self, body: object) -> None:
        """Answer 200 with *body*."""
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def worker() -> None:
    """Start a worker, and go on when it is deaf and in a session of its own."""
    words = [sys.executable, "-c", _WORKER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True).stdout as said:  # type: ignore[union-attr]
        print(said.readline(), end="", flush=True)


def main() -> None:
    """Load as vLLM does, then serve, or end as the mode wants it."""
    print("INFO 11-23 12:00:00 [api_server.py:1] vLLM API server version 0.32.0", flush=True)
    for done in range(4):
        bar = f"Loading safetensors checkpoint shards: {25 * done:3}% Completed | {done}/4"
        sys.stderr.write(f"\r(Worker pid=7) \x1b[32m{bar} [00:01<00:01]\x1b[0m")
        sys.stderr.flush()
    print(f"key {os.environ.get('VLLM_API_KEY', 'none')[:4]}", flush=True)
    if MODE == "oom":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
        sys.exit("RuntimeError: Engine core initialization failed")
    if MODE == "usage":
        sys.stderr.write("vllm: error: unrecognized arguments: --seed=7\n")
        sys.exit(2)
    if MODE == "exits-0":
        sys.exit(0)
    while MODE == "hangs":
        time.sleep(0.01)
        print("INFO waiting for 1 core engine to start", flush=True)
    if MODE.startswith("worker"):
        worker()
    if MODE == "worker-left":
        os.kill(os.getpid(), signal.SIGKILL)
    server = ThreadingHTTPServer((value("--host"), int(value("--port"))), Routes)
    print("INFO:     Application startup complete.", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
