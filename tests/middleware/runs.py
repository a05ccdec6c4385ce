"""Real middleware under audit: each run is the command itself, and its report."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import msgspec

from kimideploy.conformance.audit.report import Report
from tests.contract.servers import free_port

HERE = Path(__file__).parent
LOOPS = HERE / "loops"
REQUIREMENTS = HERE / "requirements.txt"
#: seconds one command may take, and a proxy until it answers
LIMIT, START = 180, 120
KEY = "sk-test-0123456789abcdefghijklmnop0123456789"
PROXY_MODEL = "kimi"


def home(wanted: Path = REQUIREMENTS) -> Path:
    """Return the folder with an environment of *wanted*, made if it is not there."""
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "kimideploy" / f"middleware-{digest}"
    if (folder / ".complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    uv = Path(sys.executable).with_name("uv")
    words: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin" / "python",
    ]
    subprocess.run([*words, "--requirement", wanted], check=True)
    (folder / ".complete").touch()
    return folder


def python() -> str:
    """Return the interpreter of that environment."""
    return str(home() / "bin" / "python")


def audited(*words: str, env: Mapping[str, str] | None = None) -> tuple[int, Report]:
    """Return the exit code and the report of `kimideploy audit` with these words."""
    argv = [sys.executable, "-m", "kimideploy", "audit", "--json", *words]
    done = subprocess.run(
        argv, env={**os.environ, **(env or {})}, capture_output=True, timeout=LIMIT, check=False
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    document = json.loads(done.stdout)
    document.pop("ok")
    return done.returncode, msgspec.convert(document, Report)


def looped(name: str, *options: str) -> tuple[int, Report]:
    """Return the audit of one of the loops, directly in front of the upstream."""
    return audited(*options, "--", python(), str(LOOPS / f"{name}.py"), "{url}")


@contextmanager
def running(argv: Sequence[str], url: str, env: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the end, from when *url* answers."""
    with subprocess.Popen(
        argv, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until_it_answers(process, url)
            yield
        finally:
            process.terminate()
            process.wait(30)


def until_it_answers(process: subprocess.Popen[bytes], url: str) -> None:
    """Return when *url* answers; the sleep is between two knocks at another process's door."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer in {START} s")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the port its upstream must have."""

    url: str
    upstream: int


@contextmanager
def litellm(folder: Path, provider: str, *, upstream: int | None = None) -> Iterator[Proxy]:
    """Run LiteLLM's proxy with a model of *provider*, in front of *upstream* or a free port."""
    proxy = Proxy(f"http://127.0.0.1:{free_port()}", upstream or free_port())
    config = folder / "litellm.yaml"
    model = {
        "model_name": PROXY_MODEL,
        "litellm_params": {
            "model": f"{provider}/kimi-k2.7-code",
            "api_base": f"http://127.0.0.1:{proxy.upstream}/v1",
            "api_key": "none",
        },
    }
    config.write_text(json.dumps({"model_list": [model]}), encoding="utf-8")
    (folder / "key").write_text(KEY, encoding="utf-8")
    host, port = "127.0.0.1", proxy.url.rpartition(":")[2]
    words = [str(home() / "bin" / "litellm"), "--config", str(config), "--host", host]
    env = {"LITELLM_MASTER_KEY": KEY, "LITELLM_TELEMETRY": "False"}
    with running([*words, "--port", port], f"{proxy.url}/health/liveliness", env):
        yield proxy


@contextmanager
def guard(missing: str) -> Iterator[Proxy]:
    """Run our own guard."""
    port, upstream = free_port(), free_port()
    proxy = Proxy(f"http://127.0.0.1:{port}", upstream)
    words = [sys.executable, "-m", "kimideploy", "guard", "run", f"http://127.0.0.1:{upstream}"]
    words += ["--port", str(port), "--missing", missing, "--reads", "reasoning"]
    with running([*words], f"{proxy.url}/metrics", {}):
        yield proxy


def through(proxy: Proxy, folder: Path) -> tuple[int, Report]:
    """Return the audit of *proxy* by our own client."""
    words = ["--port", str(proxy.upstream), "--through", proxy.url]
    if (folder / "key").exists():
        words += ["--as-model", PROXY_MODEL, "--api-key-file", str(folder / "key")]
    return audited(*words)


def looped_through(proxy: Proxy, name: str, model: str = "kimi-k2.7-code") -> tuple[int, Report]:
    """Return the audit of a loop that asks *proxy*, whose upstream is the audit."""
    command = ["env", f"KIMIDEPLOY_MODEL={model}", f"LOOP_KEY={KEY}", python()]
    return audited(
        "--port", str(proxy.upstream), "--", *command, str(LOOPS / f"{name}.py"), f"{proxy.url}/v1"
    )
