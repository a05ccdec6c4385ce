"""`kimideploy report`: a plan file in, one page out."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from kimideploy.cli.report import command
from kimideploy.planning.saved import plan_from
from kimideploy.planning.types import Launch, Secret
from tests.cli.run import run, spawn

RECORDER = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([dict(os.environ), sys.argv[1:]]))
"""


@pytest.fixture
def saved() -> str:
    """Return the name of a plan file."""
    Path("plan.json").write_text(run("plan", "--hardware", "8xH200", "--json").stdout, "utf-8")
    return "plan.json"


def test_page_goes_to_the_file(saved: str) -> None:
    """-o writes the page and prints its path; the same plan is the same bytes."""
    first = run("report", saved, "-o", "deep/plan.html")
    text = Path("deep/plan.html").read_text("utf-8")
    again = run("report", saved, "-o", "deep/plan.html")

    assert (0, "deep/plan.html\n", "") == (first.exit_code, first.stdout, first.stderr)
    assert 0 == again.exit_code
    assert text == Path("deep/plan.html").read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    assert ["plan.html"] == [path.name for path in Path("deep").iterdir()]


@pytest.mark.parametrize("words", [(), ("-o", "-")], ids=["pipe", "dash"])
def test_page_goes_down_a_pipe(saved: str, words: tuple[str, ...]) -> None:
    """Without -o, and with -o -, the page is on stdout and nothing else is."""
    found = spawn("report", saved, *words, env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert (0, "") == (found.returncode, found.stderr)
    assert found.stdout.startswith("<!DOCTYPE html>\n")
    assert found.stdout.endswith("</html>\n")
    assert "8×h200" in found.stdout


def test_plan_comes_down_a_pipe(saved: str) -> None:
    """- reads the plan from stdin, and gives the page that the file gives."""
    piped = run("report", "-", stdin=Path(saved).read_text("utf-8"))

    assert run("report", saved).stdout == piped.stdout


def test_no_page_on_a_terminal(saved: str) -> None:
    """On a terminal it writes no HTML, and says which words write a file."""
    ours, theirs = pty.openpty()
    found = subprocess.run(
        [sys.executable, "-m", "kimideploy", "report", saved],
        stdout=theirs,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    os.close(theirs)
    os.close(ours)

    assert 2 == found.returncode
    assert "hint: kimideploy report plan.json -o plan.html\n" in found.stderr


def test_other_text_is_not_replaced(saved: str) -> None:
    """A file with another text stays as it is, until --force."""
    Path("plan.html").write_text("mine", "utf-8")

    refused = run("report", saved, "-o", "plan.html")
    kept = Path("plan.html").read_text("utf-8")
    forced = run("report", saved, "-o", "plan.html", "--force")

    assert (2, "mine") == (refused.exit_code, kept)
    assert "--force" in refused.stderr
    assert 0 == forced.exit_code
    assert Path("plan.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_plan_is_not_replaced_by_its_page(saved: str) -> None:
    """Naming the plan itself as the page is refused, too."""
    before = Path(saved).read_bytes()

    assert 2 == run("report", saved, "-o", saved).exit_code
    assert before == Path(saved).read_bytes()


def test_no_is_a_page() -> None:
    """A saved "no" is a page with its reason, and making it is no failure."""
    decision = run("plan", "--hardware", "8xA100-80GB", "--tier", "int4-a100", "--json").stdout

    found = run("report", "-", stdin=decision)

    assert (0, "") == (found.exit_code, found.stderr)
    assert "Nothing fits" in found.stdout
    assert "Ways out" in found.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "error: stdin:1:1: "),
        ("", "error: stdin:1:1: the file is empty"),
        ('{"decision": "plan", "candidate": 3}', "error: stdin:1:"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    """Anything that no plan is, is a wrong request with its place."""
    found = run("report", "-", stdin=text)

    assert (2, "") == (found.exit_code, found.stdout)
    assert said in found.stderr


def test_missing_file_is_named() -> None:
    """A file that can't be read is a wrong request."""
    found = run("report", "nowhere.json")

    assert 2 == found.exit_code
    assert "nowhere.json can't be read" in found.stderr


def test_another_schema_is_refused(saved: str) -> None:
    """A plan of another version is not guessed at."""
    document = json.loads(Path(saved).read_text("utf-8"))

    found = run("report", "-", stdin=json.dumps({**document, "schema": "kimideploy.plan/9"}))

    assert 2 == found.exit_code
    assert "stdin is a kimideploy.plan/9" in found.stderr


def test_a_page_is_never_too_large(saved: str) -> None:
    """A plan that would make a page of more than a megabyte is refused."""
    document = json.loads(Path(saved).read_text("utf-8"))

    found = run("report", "-", stdin=json.dumps({**document, "why": ["x" * 1_000_000]}))

    assert 2 == found.exit_code
    assert "larger than 1,000,000 bytes" in found.stderr


def test_own_profiles_are_read(saved: str) -> None:
    """--profiles names a folder, and one that is none is refused."""
    assert 2 == run("report", saved, "--profiles", "nowhere").exit_code


def obeyed(text: str, program: str) -> tuple[dict[str, str], list[str]]:
    """Return environment and arguments that a shell gives *program* for the command *text*."""
    Path(program).write_text(RECORDER, "utf-8")
    Path(program).chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": f"{Path.cwd()}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    env, words = json.loads(said)
    return env, words


def test_command_of_the_page_is_the_launch(saved: str) -> None:
    """What is copied from the page is, word by word, what the node runs."""
    (launch,) = plan_from(Path(saved).read_text("utf-8"), name=saved).launches
    text = run("report", saved).stdout.partition("<code>")[2].partition("</code>")[0]

    env, words = obeyed(unescape(text), launch.argv[0])

    assert list(launch.argv[1:]) == words
    assert dict(launch.env).items() <= env.items()


def test_odd_words_and_secrets_reach_the_program() -> None:
    """Any word arrives as it is, and a secret arrives from its file without being in the text."""
    Path("the key").write_text("poison", "utf-8")
    odd = ("it's $HOME", "", "a\nb\r", "-x", "--y=`id`", "\\", "--", "…")
    launch = Launch(
        node=0,
        argv=("engine", *odd),
        env=(("A", "1 2"), ("B", "")),
        host="127.0.0.1",
        port=1,
        secrets=(Secret("KEY", "the key"),),
    )

    text = command(launch)
    env, words = obeyed(text, "engine")

    assert "poison" not in text
    assert list(odd) == words
    assert ("1 2", "", "poison") == (env["A"], env["B"], env["KEY"])


def test_page_has_the_break_even(saved: str) -> None:
    """The page tells the costs of the traffic that was named, and the curve has its numbers."""
    words = ("--tokens-per-day", "500M", "--gpu-price", "1.50", "--cache-hit", "0.8")
    text = unescape(run("report", saved, *words).stdout)

    assert "A machine of 8 GPUs costs no more than the API: from 385M tokens a day on." in text
    assert "$1.50 (as given)" in text
    assert 'id="cost" aria-labelledby' in text


def test_page_without_a_price_says_so(saved: str) -> None:
    """A card without a known price has no curve and a way to one; by flag it is exit 2."""
    plan = run("plan", "--hardware", "1xRTX4090+768GiB", "--json").stdout
    Path("home.json").write_text(plan, "utf-8")

    text = unescape(run("report", "home.json").stdout)
    refused = run("report", "home.json", "--tokens-per-day", "1M")

    assert "There is no chart of costs: no on-demand price" in text
    assert "--gpu-price 2.50" in text
    assert (2, "") == (refused.exit_code, refused.stdout)
    assert 2 == run("report", saved, "--cache-hit", "7").exit_code
