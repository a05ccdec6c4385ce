"""Keys and limits, and what holds before anybody has shown a key."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from kimideploy.guard import keys
from tests.guard.door import CHAT, QUESTION, Door, door, run

# --- keys and limits ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, str]]:
    """A guard that asks for a key, takes little and seldom; and a key."""
    path = tmp_path_factory.mktemp("keys") / "guard.keys"
    key = keys.add(path, "laptop")
    keys.add(path, "other")
    words = ("--keys", str(path), "--max-body", "1", "--per-minute", "30")
    with door(engine, *words) as found:
        yield found, key


def test_only_keys_open_it(locked: tuple[Door, str]) -> None:
    """As a bearer token or as x-api-key; health alone needs none."""
    found, key = locked
    for wrong in (None, "", "kd-wrong", key[:-1], f"{key}x", "laptop"):
        assert 401 == found.ask("/v1/models", key=wrong).status
    assert 200 == found.ask("/v1/models", key=key).status
    assert 200 == found.ask("/v1/models", headers={"x-api-key": key}).status
    assert 401 == found.ask("/metrics").status
    assert 200 == found.ask("/health").status


def test_a_request_that_is_too_large_is_not_read(locked: tuple[Door, str]) -> None:
    """By what it says, and by what it sends."""
    found, key = locked
    assert 413 == found.ask(CHAT, b" " * ((1 << 20) + 1), method="POST", key=key).status
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    answer = found.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 2)
    assert b"413" == answer.split(b" ")[1]


def test_a_key_has_its_rate(locked: tuple[Door, str]) -> None:
    """After a minute's worth at once comes a 429 that says how long to wait; not for lists."""
    found, key = locked
    seen = [found.ask(CHAT, QUESTION, key=key).status for _ in range(40)]

    assert 429 in seen
    assert {200, 429} == set(seen)
    reply = found.ask(CHAT, QUESTION, key=key)
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert 200 == found.ask("/v1/models", key=key).status


def test_a_wide_listener_wants_keys(tmp_path: Path) -> None:
    """Refused before anything listens; so are a missing file of keys and one that is none."""
    url = "http://127.0.0.1:1"
    (tmp_path / "bad").write_text("laptop plaintext-key\n", encoding="utf-8")
    for words, said in (
        (["--host", "0.0.0.0"], "nobody would be asked for a key"),
        (["--keys", str(tmp_path / "none")], "there is no file of keys"),
        (["--keys", str(tmp_path / "bad")], "bad:1: no line of a key"),
        (["--tls-key", "x"], "go together"),
    ):
        code, out, err = run("run", url, "--reads", "reasoning", *words)
        assert (2, "") == (code, out)
        assert said in err


# --- before anybody has shown a key ------------------------------------------------------


def test_a_head_has_an_end(open_door: Door) -> None:
    """Headers without end are cut off, and others are served meanwhile."""
    with socket.create_connection(("127.0.0.1", open_door.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        said = b""
        with suppress(OSError):
            for _ in range(4000):
                connection.sendall(b"a: b\r\n" * 200)
            said = connection.recv(100)
    assert said == b"" or b" 431 " in said
    assert 200 == open_door.ask("/health").status


def test_a_page_of_elsewhere_reaches_nothing(open_door: Door) -> None:
    """Without keys neither another host's name, nor its page, nor a body of another type serves."""
    body = json.dumps(QUESTION).encode()
    for headers, status in (
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "[::1]:80"}, 200),
    ):
        assert status == open_door.ask(CHAT, body, method="POST", headers=headers).status, headers


def test_health_takes_nobodys_place(engine: str) -> None:
    """It is asked once a second, whoever wants to know, and counts as no request under way."""
    with door(engine, "--max-under-way", "1") as found:
        with ThreadPoolExecutor(16) as pool:
            seen = list(pool.map(lambda _: found.ask("/health").status, range(64)))
        assert {200} == set(seen)
        assert 200 == found.ask(CHAT, QUESTION).status


def test_a_body_that_never_comes_holds_one_place_at_most(engine: str, tmp_path: Path) -> None:
    """Of several keys none may have all places, so that the others are served."""
    path = tmp_path / "guard.keys"
    one, other = keys.add(path, "one"), keys.add(path, "other")
    with door(engine, "--keys", str(path), "--max-under-way", "4") as found:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one}\r\n"
            "Content-Type: application/json\r\nContent-Length: 10\r\n\r\n"
        ).encode()
        waiting = [socket.create_connection(("127.0.0.1", found.port)) for _ in range(6)]
        for connection in waiting:
            connection.sendall(head)
        until(lambda: found.ask(CHAT, QUESTION, key=one).status == 503)

        assert 200 == found.ask(CHAT, QUESTION, key=other).status
        for connection in waiting:
            connection.close()


def until(holds: Callable[[], bool]) -> None:
    """Return when *holds* does; the sleep is between two looks at another process."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never held")
