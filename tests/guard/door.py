"""A real guard in front of something."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.servers import Answer

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "What is 17 times 23?"}]}


@dataclass(frozen=True)
class Door:
    """A guard under test."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            word = method or ("GET" if body is None else "POST")
            connection.request(word, path, body=data, headers=sent)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, named, reply.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Return the first piece that comes back for *request*, byte for byte as it stands."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            return connection.recv(65536)


def raw_request(line: bytes, body: bytes) -> bytes:
    """Return a request with this method and path, byte for byte."""
    head = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % line
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def chat_request(body: bytes) -> bytes:
    """Return a chat request as bytes."""
    return raw_request(b"POST /v1/chat/completions", body)


@contextmanager
def door(upstream: str, *words: str) -> Iterator[Door]:
    """Run `kimideploy guard run` until the end, from when it has said its address."""
    argv = [sys.executable, "-m", "kimideploy", "guard", "run", upstream, "--port", "0", *words]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("http"), f"ended with {process.wait()}"
        found = Door(int(said.removesuffix("/v1\n").rpartition(":")[2]), process)
        try:
            yield found
        finally:
            process.terminate()
            process.wait(40)


def run(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Return exit code and both outputs of `kimideploy guard` with *words*."""
    argv: Sequence[str] = [sys.executable, "-m", "kimideploy", "guard", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr
