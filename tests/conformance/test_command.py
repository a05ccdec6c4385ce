"""`kimideploy verify` as a command: words, records, pages, comparisons, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.run import run
from tests.conformance.endpoint import ARGV, KEY, misbehaving, raw
from tests.contract.servers import stand_in


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A file with the key in it."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n", encoding="utf-8")
    return str(path)


def test_a_good_endpoint_is_0_and_a_bad_one_1(key: str) -> None:
    """With cause, cure and request for what is broken, in 80 columns; the key is nowhere."""
    with misbehaving() as good, misbehaving("own-ids", "echo-key") as bad:
        first = run("verify", good, "--api-key-file", key)
        second = run("verify", bad, "--api-key-file", key)

    assert (0, 1) == (first.exit_code, second.exit_code), first.stdout
    assert "0 broken" in first.stdout
    for said in ("✗ tool id", "'call_00000000' is not of the form", "fix:", "sent: POST", "came:"):
        assert said in second.stdout
    assert "✗ key is not told" in second.stdout
    assert KEY not in first.stdout + second.stdout + second.stderr
    assert all(len(line) <= 80 for line in second.stdout.splitlines())


def test_a_record_is_judged_again(key: str, tmp_path: Path) -> None:
    """Without the endpoint, with the same verdict; it holds no key."""
    folder, page = tmp_path / "run", tmp_path / "v.xml"
    with misbehaving("echo-key", "one-call") as url:
        words = ("verify", url, "--api-key-file", key, "--suite", "full", "--seed", "3", "--json")
        first = run(*words, "--record", str(folder), "--junit", str(page))
    again = run("verify", "--replay", str(folder), "--json")

    one, other = json.loads(first.stdout), json.loads(again.stdout)
    assert (1, 1) == (first.exit_code, again.exit_code)
    assert one["checks"] == other["checks"]
    assert one["score"] == other["score"] < 1
    assert KEY not in (folder / "run.json").read_text("utf-8")
    root = ET.fromstring(page.read_bytes())
    (suite,) = root
    assert str(len(one["checks"])) == suite.get("tests")
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert {"key is not told", "parallel calls"} == failed


def test_two_endpoints_side_by_side(key: str) -> None:
    """Who keeps what, and both scores; the exit code is the first one's."""
    with misbehaving("own-ids") as bad, misbehaving() as good:
        words = ("--api-key-file", key, "--against-key-file", key)
        lost = run("verify", bad, "--against", good, *words)
        won = run("verify", good, "--against", bad, *words, "--json")

    assert (1, 0) == (lost.exit_code, won.exit_code)
    assert "B keeps it" in lost.stdout
    assert "broken by A" in lost.stdout
    both = json.loads(won.stdout)
    assert both["a"]["ok"]
    assert both["a"]["score"] > both["b"]["score"]


def test_a_name_that_is_no_model_of_ours_is_judged_as_one() -> None:
    """Which one is said, and --as decides."""
    argv = tuple("vendor-model" if word == "kimi-k2.7-code" else word for word in ARGV)
    with stand_in(argv) as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}"
        guessed = run("verify", url)
        told = run("verify", url, "--as", "kimi-k2.5")

    assert (0, 0) == (guessed.exit_code, told.exit_code)
    assert "'vendor-model' is judged as kimi-k2.7-code" in guessed.stderr
    assert "note" not in told.stderr
    assert "forgets the reasoning of finished turns" in told.stdout


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ([], "an endpoint's URL, or --replay DIR", 2),
        (["http://x", "--replay", "y"], "an endpoint's URL, or --replay DIR", 2),
        (["http://x", "--suite", "vendor"], "needs requests", 2),
        (["http://x", "--expected", "y"], "are of the suite vendor", 2),
        (["ftp://x"], "is no http or https address", 2),
        (["http://x", "--api-key-file", "/nowhere"], "can't be read", 2),
        (["--replay", "/nowhere"], "--record DIR makes one", 2),
        (["http://127.0.0.1:1"], "can't be asked: Connection refused", 3),
        (["https://127.0.0.1:1"], "can't be asked: Connection refused", 3),
    ],
)
def test_what_can_not_be_verified(words: list[str], said: str, code: int) -> None:
    """One sentence, what helps, and the number."""
    done = run("verify", *words)

    assert code == done.exit_code
    assert said in done.stderr
    assert "" == done.stdout


def test_a_record_that_is_none(tmp_path: Path) -> None:
    """Whatever lies there: no traceback."""
    for text in ("", "{}", '{"url": 7}', "[" * 100_000, "\xff"):
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
        done = run("verify", "--replay", str(tmp_path))
        assert 2 == done.exit_code
        assert "is no record of kimideploy" in done.stderr


def test_a_list_without_models_is_told() -> None:
    """An endpoint that names none needs --model."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data": []}'
    with raw(lambda connection: connection.sendall(answer)) as url:
        done = run("verify", url)

    assert 2 == done.exit_code
    assert "names no model" in done.stderr
