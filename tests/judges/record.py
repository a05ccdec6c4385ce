"""Start the real vLLM on the tiny model, ask it the cases of `CASES`, and keep what it said.

`record(bin_dir, logs)` leaves two files: the complete log of the run, and one JSON list with the
question and the answer of every case. The stand-in engine is held against both.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.judges.tiny import CONTEXT, write_tiny

MODEL = "kimi-k2.7-code"
VERSION = "0.32.0"
KEPT_HEADERS = ("content-type", "content-length", "transfer-encoding", "allow", "server", "vary")
CHAT = "/v1/chat/completions"
START_BUDGET_S = 600.0

Body = Mapping[str, object] | bytes | None


@dataclass(frozen=True)
class Case:
    """One question: what is sent, and under which name its answer is kept."""

    name: str
    method: str
    path: str
    body: Body = None
    headers: Mapping[str, str] = field(default_factory=dict)
    only: str = ""  # keep only the lines of the answer that this pattern finds


TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run Python.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "maxLength": 8}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}
USER = {"role": "user", "content": "What is 2+3?"}
CALL = {
    "id": "functions.run_python:0",
    "type": "function",
    "function": {"name": "run_python", "arguments": '{"code":"2+3"}'},
}
RESULT = {"role": "tool", "tool_call_id": "functions.run_python:0", "content": "5"}
NAMED = {"type": "function", "function": {"name": "run_python"}}


def chat(**changes: object) -> dict[str, object]:
    """Return a small valid chat request with `changes`; a change to None takes the key out."""
    request: dict[str, object] = {
        "model": MODEL,
        "messages": [USER],
        "max_tokens": 12,
        "temperature": 0.0,
        **changes,
    }
    return {key: value for key, value in request.items() if value is not None}


def history(**assistant: object) -> list[dict[str, object]]:
    """Return a conversation whose assistant turn called the tool and carried `assistant`."""
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL], **assistant}
    return [dict(USER), turn, dict(RESULT)]


def asks(name: str, body: Body, **headers: str) -> Case:
    """Return a case that posts `body` to the chat endpoint."""
    return Case(name, "POST", CHAT, body, headers)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}

CASES: tuple[Case, ...] = (
    Case("health", "GET", "/health"),
    Case("version", "GET", "/version"),
    Case("models", "GET", "/v1/models"),
    Case("ping", "GET", "/ping"),
    asks("chat", chat()),
    asks("chat, model left out", chat(model=None)),
    asks("chat, no max_tokens but a stop", chat(max_tokens=None, max_completion_tokens=4)),
    asks("chat, two choices", chat(n=2, temperature=1.0, seed=1, max_tokens=4)),
    asks("chat, logprobs", chat(logprobs=True, top_logprobs=1, max_tokens=2)),
    asks("chat, stream", chat(stream=True, max_tokens=6)),
    asks(
        "chat, stream with usage",
        chat(stream=True, max_tokens=6, stream_options={"include_usage": True}),
    ),
    asks(
        "chat, stream with continuous usage",
        chat(
            stream=True,
            max_tokens=3,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        ),
    ),
    asks("chat, stream_options without stream", chat(stream_options={"include_usage": True})),
    asks("chat, thinking switched off", chat(chat_template_kwargs={"thinking": False})),
    asks("chat, unknown field", chat(no_such_field=1)),
    asks("chat, response_format json_object", chat(response_format={"type": "json_object"})),
    asks("unknown model", chat(model="no-such-model")),
    asks("unknown model, stream", chat(model="no-such-model", stream=True)),
    asks("malformed JSON", b'{"model": "kimi-k2.7-code", '),
    asks("body is a list", b"[]"),
    asks("empty body", b""),
    asks("not UTF-8", b'{"model": "\xff\xfe"}'),
    Case("text/plain body", "POST", CHAT, chat(max_tokens=2), {"content-type": "text/plain"}),
    asks("messages missing", chat(messages=None)),
    asks("messages empty", chat(messages=[])),
    asks("messages is a string", chat(messages="hello")),
    asks("unknown role", chat(messages=[{"role": "wizard", "content": "x"}])),
    asks("max_tokens larger than the context", chat(max_tokens=CONTEXT + 1)),
    asks("prompt and max_tokens together too long", chat(max_tokens=CONTEXT)),
    asks("prompt larger than the context", chat(messages=[{**USER, "content": "x" * CONTEXT}])),
    asks(
        "prompt larger than the context, stream",
        chat(messages=[{**USER, "content": "x" * CONTEXT}], stream=True),
    ),
    asks("max_tokens zero", chat(max_tokens=0)),
    asks("max_tokens negative", chat(max_tokens=-1)),
    asks("max_tokens is a word", chat(max_tokens="many")),
    asks("temperature negative", chat(temperature=-0.5)),
    asks("top_p above one", chat(top_p=1.5)),
    asks("tools, choice left out", chat(tools=[TOOL])),
    asks("tools, choice auto", chat(tools=[TOOL], tool_choice="auto")),
    asks("tools, choice none", chat(tools=[TOOL], tool_choice="none")),
    asks("tools, choice required", chat(tools=[TOOL], tool_choice="required", max_tokens=200)),
    asks("tools, choice named", chat(tools=[TOOL], tool_choice=NAMED, max_tokens=200)),
    asks(
        "tools, choice required, stream",
        chat(tools=[TOOL], tool_choice="required", max_tokens=200, stream=True),
    ),
    asks(
        "tools, choice named, stream",
        chat(tools=[TOOL], tool_choice=NAMED, max_tokens=200, stream=True),
    ),
    asks(
        "tools, choice names an unknown tool",
        chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "nobody"}}),
    ),
    asks("tool choice required without tools", chat(tool_choice="required")),
    asks("tool choice auto without tools", chat(tool_choice="auto")),
    asks("tools empty", chat(tools=[])),
    asks("tools is a string", chat(tools="run_python")),
    asks("history with reasoning_content", chat(messages=history(reasoning_content="I add."))),
    asks("history with reasoning", chat(messages=history(reasoning="I add."))),
    asks("history without reasoning", chat(messages=history())),
    asks("history, content null", chat(messages=history(content=None))),
    asks("history, tool result with a foreign id", chat(messages=[*history(), RESULT])),
    asks(
        "content as parts", chat(messages=[{**USER, "content": [{"type": "text", "text": "hi"}]}])
    ),
    asks("content with an image", chat(messages=[{**USER, "content": [IMAGE]}])),
    Case("chat by GET", "GET", CHAT),
    Case("unknown path", "GET", "/no/such/path"),
    Case("unknown path by POST", "POST", "/no/such/path", {}),
    Case("health by POST", "POST", "/health", {}),
    Case("health by HEAD", "HEAD", "/health"),
    Case(
        "completions",
        "POST",
        "/v1/completions",
        {"model": MODEL, "prompt": "hello", "max_tokens": 4, "temperature": 0.0},
    ),
    Case(
        "completions, stream",
        "POST",
        "/v1/completions",
        {"model": MODEL, "prompt": "hello", "max_tokens": 3, "temperature": 0.0, "stream": True},
    ),
    Case("tokenize", "POST", "/tokenize", {"model": MODEL, "messages": [USER]}),
    Case("metrics", "GET", "/metrics", only=r"^(?!.*_bucket\{).*\b(vllm:|http_requests)"),
)


def free_port() -> int:
    """Return a loopback port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, case: Case) -> dict[str, object]:
    """Send one case and return it with its answer, ready for JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    if case.body is None or isinstance(case.body, bytes):
        data = case.body
    else:
        data = json.dumps(case.body).encode()
    headers = {"content-type": "application/json"} if data is not None else {}
    connection.request(case.method, case.path, data, {**headers, **case.headers})
    answer = connection.getresponse()
    body = answer.read().decode("utf-8", "replace")
    connection.close()
    if case.only:
        lines = body.splitlines(keepends=True)
        body = "".join(line for line in lines if re.search(case.only, line))
    sent: object = case.body
    if isinstance(case.body, bytes):
        sent = {"raw": case.body.decode("latin-1")}
    return {
        "name": case.name,
        "method": case.method,
        "path": case.path,
        "request": sent,
        "request_headers": dict(case.headers),
        "status": answer.status,
        "headers": {
            name.lower(): value
            for name, value in answer.getheaders()
            if name.lower() in KEPT_HEADERS
        },
        "body": body,
    }


def serve_argv(bin_dir: Path, model: Path, port: int) -> list[str]:
    """Return the command of the recorded run."""
    return [
        str(bin_dir / "vllm"),
        "serve",
        str(model),
        "--served-model-name",
        MODEL,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--load-format",
        "dummy",
        "--trust-remote-code",
        "--max-model-len",
        str(CONTEXT),
        "--tool-call-parser",
        "kimi_k2",
        "--enable-auto-tool-choice",
        "--reasoning-parser",
        "kimi_k2",
        "--enforce-eager",
    ]


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds until `/health` answered 200; raise when the engine ends or is late."""
    started = time.monotonic()
    while time.monotonic() - started < START_BUDGET_S:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode} before it was ready")
        try:
            if ask(port, CASES[0])["status"] == http.client.OK:
                return time.monotonic() - started
        except OSError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the engine was not ready after {START_BUDGET_S:.0f} s")


def scrub(text: str, places: Mapping[str, str]) -> str:
    """Return `text` with each key of `places` replaced by its word, longest first."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    text = re.sub(r"/tmp/(?!model)[\w./-]+", "/tmp/…", text)
    text = re.sub(r"(mq_connect_ip=)[\d.]+", r"\g<1>192.0.2.1", text)
    return text.replace(socket.gethostname(), "host")


def record(bin_dir: Path, logs: Path, say: Callable[[str], None] = print) -> None:
    """Run the engine once; `logs` then holds its complete log and every case with its answer."""
    folder = Path(tempfile.mkdtemp(prefix="kimi-tiny-"))
    model, log, port = folder / "model", folder / "log", free_port()
    write_tiny(model)
    argv = serve_argv(bin_dir, model, port)
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )
        try:
            say(f"ready after {wait_ready(port, process):.1f} s")
            answers = [ask(port, case) for case in CASES]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                say(f"ended with {process.wait(60)}")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                say("had to be killed")
        places = {
            str(bin_dir.parent): "/opt/vllm",
            str(model): "/models/tiny",
            sys.base_prefix: "/usr",
            str(Path.home()): "~",
            str(port): "8000",
        }
        logs.mkdir(parents=True, exist_ok=True)
        text = log.read_text("utf-8", "replace")
        command = " ".join(argv)
        (logs / f"vllm-{VERSION}-cpu-tiny.log").write_text(
            scrub(f"$ VLLM_CPU_KVCACHE_SPACE=1 {command}\n{text}", places), "utf-8"
        )
        recorded = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
        (logs / f"vllm-{VERSION}-api.json").write_text(scrub(recorded, places), "utf-8")
        say(f"{len(answers)} answers kept")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
