"""Start a real engine on a model we wrote, ask it a list of questions, and keep what it said.

Each run leaves two files: the complete log, and one JSON list with the question and the answer of
every case. The stand-in engine is held against both. The tiny run has random weights and shows
the edges of the API; the scripted run says what is written and shows what the parsers make of it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.judges.scripted import ARGUMENT, CALL_ID, write_scripted
from tests.judges.scripted_gguf import write_gguf
from tests.judges.tiny import CONTEXT, write_tiny

MODEL = "kimi-k2.7-code"
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
            "properties": {"code": {"type": "string", "maxLength": 40}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}
USER = {"role": "user", "content": "What is 2+3?"}
CALL = {
    "id": CALL_ID,
    "type": "function",
    "function": {"name": "run_python", "arguments": ARGUMENT},
}
RESULT = {"role": "tool", "tool_call_id": CALL_ID, "content": "3682913"}
NO_THINKING = {"thinking": False}
USAGE = {"include_usage": True}
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

LOADING = Case("health while loading", "GET", "/health")
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
        "tools, choice named, thinking off",
        chat(tools=[TOOL], tool_choice=NAMED, max_tokens=200, chat_template_kwargs=NO_THINKING),
    ),
    asks(
        "tools, choice named, thinking off, stream",
        chat(
            tools=[TOOL],
            tool_choice=NAMED,
            max_tokens=200,
            chat_template_kwargs=NO_THINKING,
            stream=True,
        ),
    ),
    asks(
        "tools, choice required, thinking off",
        chat(
            tools=[TOOL], tool_choice="required", max_tokens=200, chat_template_kwargs=NO_THINKING
        ),
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


SPEAKS: tuple[Case, ...] = (
    asks("question", chat(max_tokens=None)),
    asks("question, stream", chat(max_tokens=None, stream=True, stream_options=USAGE)),
    asks("question at temperature 1", chat(max_tokens=None, temperature=1.0, seed=7)),
    asks("question, cut off while thinking", chat(max_tokens=4)),
    asks("question, cut off while thinking, stream", chat(max_tokens=4, stream=True)),
    asks("question, cut off at the end of thinking", chat(max_tokens=11)),
    asks("question, reasoning not wanted", chat(max_tokens=None, include_reasoning=False)),
    asks(
        "question, reasoning not wanted, stream",
        chat(max_tokens=None, include_reasoning=False, stream=True),
    ),
    asks("question, stopped by a word", chat(max_tokens=None, stop=["twenty"])),
    asks("question, two choices", chat(max_tokens=None, n=2)),
    asks("question, logprobs", chat(max_tokens=None, logprobs=True, top_logprobs=1)),
    asks("question, token ids", chat(max_tokens=None, return_token_ids=True)),
    asks("question, thinking off", chat(max_tokens=None, chat_template_kwargs=NO_THINKING)),
    asks("question, thinking budget", chat(max_tokens=None, thinking_token_budget=3)),
    asks("question, JSON wanted", chat(max_tokens=200, response_format={"type": "json_object"})),
    asks("task, choice left out", chat(max_tokens=None, tools=[TOOL])),
    asks("task, choice auto", chat(max_tokens=None, tools=[TOOL], tool_choice="auto")),
    asks(
        "task, choice auto, stream",
        chat(max_tokens=None, tools=[TOOL], stream=True, stream_options=USAGE),
    ),
    asks("task, choice none", chat(max_tokens=None, tools=[TOOL], tool_choice="none")),
    asks("task, choice none, stream", chat(tools=[TOOL], tool_choice="none", stream=True)),
    asks("task, choice required", chat(max_tokens=200, tools=[TOOL], tool_choice="required")),
    asks(
        "task, choice required, stream",
        chat(max_tokens=200, tools=[TOOL], tool_choice="required", stream=True),
    ),
    asks("task, choice named", chat(max_tokens=200, tools=[TOOL], tool_choice=NAMED)),
    asks(
        "task, choice named, stream",
        chat(max_tokens=200, tools=[TOOL], tool_choice=NAMED, stream=True),
    ),
    asks(
        "task, thinking off",
        chat(max_tokens=None, tools=[TOOL], chat_template_kwargs=NO_THINKING),
    ),
    asks("task, no parallel calls", chat(max_tokens=None, tools=[TOOL], parallel_tool_calls=False)),
    asks("task, cut off in the call", chat(max_tokens=16, tools=[TOOL])),
    asks("task, cut off in the call, stream", chat(max_tokens=16, tools=[TOOL], stream=True)),
    asks(
        "after the tool, reasoning_content kept",
        chat(max_tokens=None, tools=[TOOL], messages=history(reasoning_content="I need Python.")),
    ),
    asks(
        "after the tool, reasoning kept",
        chat(max_tokens=None, tools=[TOOL], messages=history(reasoning="I need Python.")),
    ),
    asks(
        "after the tool, reasoning dropped",
        chat(max_tokens=None, tools=[TOOL], messages=history()),
    ),
    asks(
        "after the tool, content null",
        chat(
            max_tokens=None,
            tools=[TOOL],
            messages=history(reasoning="I need Python.", content=None),
        ),
    ),
    Case("messages API", "POST", "/v1/messages", {**chat(max_tokens=64), "tools": None}),
    Case("responses API", "POST", "/v1/responses", {"model": MODEL, "input": "17 times 23?"}),
)


EDGES = tuple(case for case in CASES if case.name not in {"chat, two choices", "metrics"})


@dataclass(frozen=True)
class Run:
    """One start of an engine: on which model, with which questions, under which file names."""

    engine: str
    write: Callable[[Path], None]
    argv: Callable[[Path, Path, int], list[str]]
    cases: tuple[Case, ...]
    log: str
    answers: str
    environment: Mapping[str, str] = field(default_factory=dict)


def vllm_argv(*flags: str) -> Callable[[Path, Path, int], list[str]]:
    """Return how a command of vLLM is made."""

    def argv(bin_dir: Path, model: Path, port: int) -> list[str]:
        served = ("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port))
        parsers = ("--tool-call-parser", "kimi_k2", "--enable-auto-tool-choice")
        thinks = ("--reasoning-parser", "kimi_k2", "--trust-remote-code")
        return [str(bin_dir / "vllm"), "serve", str(model), *served, *parsers, *thinks, *flags]

    return argv


def llamacpp_argv(bin_dir: Path, model: Path, port: int) -> list[str]:
    """Return the command of llama-server."""
    served = ("--alias", MODEL, "--host", "127.0.0.1", "--port", str(port))
    thinks = ("--jinja", "--reasoning-format", "deepseek")
    # Why the verbosity: at its default, 3, neither weights nor cache are in the log.
    sizes = ("--ctx-size", "8192", "--parallel", "1", "--metrics", "--verbosity", "4")
    program = str(bin_dir / "llama-server")
    return [program, "--model", str(model), *served, *thinks, *sizes]


ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
TINY = Run(
    engine="vllm",
    write=write_tiny,
    argv=vllm_argv("--load-format", "dummy", "--max-model-len", str(CONTEXT), "--enforce-eager"),
    cases=CASES,
    log="vllm-0.32.0-cpu-tiny.log",
    answers="vllm-0.32.0-api.json",
    environment=ON_CPU,
)
SCRIPTED = Run(
    engine="vllm",
    write=write_scripted,
    argv=vllm_argv(),  # compiled, as it runs in earnest
    cases=SPEAKS,
    log="vllm-0.32.0-cpu-scripted.log",
    answers="vllm-0.32.0-scripted.json",
    environment=ON_CPU,
)
LLAMACPP = Run(
    engine="llamacpp",
    write=write_gguf,
    argv=llamacpp_argv,
    cases=(*SPEAKS, *EDGES, Case("props", "GET", "/props"), Case("metrics", "GET", "/metrics")),
    log="llamacpp-11434-cpu-scripted.log",
    answers="llamacpp-11434-scripted.json",
)
# Ready in half the time, with the same answers: for tests that only ask.
EAGER = replace(SCRIPTED, argv=vllm_argv("--enforce-eager"))
RUNS = {"tiny": TINY, "scripted": SCRIPTED, "llamacpp": LLAMACPP}


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


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    """Return what `/health` said before it said 200; raise when the engine ends or is late."""
    started = time.monotonic()
    before: dict[object, dict[str, object]] = {}
    while time.monotonic() - started < START_BUDGET_S:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode} before it was ready")
        try:
            answer = ask(port, LOADING)
        except OSError:
            time.sleep(0.01)
            continue
        if answer["status"] == http.client.OK:
            return list(before.values())
        before[answer["body"]] = answer
        time.sleep(0.01)
    raise RuntimeError(f"the engine was not ready after {START_BUDGET_S:.0f} s")


def scrub(text: str, places: Mapping[str, str]) -> str:
    """Return `text` with each key of `places` replaced by its word, longest first."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    text = re.sub(r"/tmp/(?!model)[\w./-]+", "/tmp/…", text)
    text = re.sub(r"(mq_connect_ip=)[\d.]+", r"\g<1>192.0.2.1", text)
    return text.replace(socket.gethostname(), "host")


def ended(process: subprocess.Popen[bytes]) -> str:
    """End the engine as a service manager does, and return how it went."""
    process.send_signal(signal.SIGTERM)
    try:
        return f"ended with {process.wait(60)}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return "had to be killed"


@dataclass(frozen=True)
class Served:
    """A running engine."""

    port: int
    argv: tuple[str, ...]
    before: tuple[dict[str, object], ...]  # what it said while it loaded


@contextmanager
def serving(
    run: Run, bin_dir: Path, folder: Path, say: Callable[[str], None] = print
) -> Iterator[Served]:
    """Run the engine on its model; it is ready inside, and ended afterwards.

    `folder` holds the model and the log, `model` and `log`.
    """
    model, port = folder / "model", free_port()
    run.write(model)
    argv = run.argv(bin_dir, model, port)
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(
            argv,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **run.environment},
            start_new_session=True,
        )
    try:
        started = time.monotonic()
        before = wait_ready(port, process)
        say(f"ready after {time.monotonic() - started:.1f} s")
        yield Served(port, tuple(argv), tuple(before))
    finally:
        say(ended(process))


def record(bin_dir: Path, logs: Path, run: Run, say: Callable[[str], None] = print) -> None:
    """Run the engine once; `logs` then holds its complete log and every case with its answer."""
    with tempfile.TemporaryDirectory(prefix="kimi-") as name:
        folder = Path(name)
        with serving(run, bin_dir, folder, say) as engine:
            answers = [*engine.before, *(ask(engine.port, case) for case in run.cases)]
        said = (folder / "log").read_text("utf-8", "replace")
    places = {
        str(bin_dir.parent): "/opt/engine",
        str(folder / "model"): "/models/kimi",
        sys.base_prefix: "/usr",
        str(Path.home()): "~",
        str(engine.port): "8000",
    }
    words = [*(f"{name}={value}" for name, value in run.environment.items()), *engine.argv]
    recorded = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / run.log).write_text(scrub(f"$ {' '.join(words)}\n{said}", places), "utf-8")
    (logs / run.answers).write_text(scrub(recorded, places), "utf-8")
    say(f"{len(answers)} answers kept")
