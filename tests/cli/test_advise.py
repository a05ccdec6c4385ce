"""`kimideploy advise`: flags in a pipe, questions on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from tests.cli.run import run


def test_little_traffic_is_for_the_api() -> None:
    """A hundred thousand tokens a day are cheaper by API, and both rules of thumb are shown."""
    result = run("advise", "--tokens-per-day", "100K")

    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.startswith("api: Kimi K2.7-Code: use the API")
    assert max(map(len, result.stdout.splitlines())) <= 80
    text = " ".join(result.stdout.split())
    assert "a rule of thumb has 100K tokens a day" in text
    assert "a rule of thumb has $200 a month" in text


def test_much_traffic_on_cheap_machines_is_for_them() -> None:
    """A billion tokens a day at $1.50 a GPU-hour pay for machines, and the command says which."""
    advice = json.loads(
        run(
            *("advise", "--tokens-per-day", "1B", "--cache-hit", "0.8"),
            *("--gpu-price", "1.50", "--json"),
        ).stdout
    )

    assert ("self-host", "kimideploy.advice/1") == (advice["answer"], advice["schema"])
    assert ["kimideploy", "plan", "--hardware"] == advice["command"][:3]
    assert "cheaper" == advice["best"]["standing"]
    assert advice["best"]["break_even"]["typical"] < 1e9


def test_air_gapped_names_a_machine() -> None:
    """Where data must stay the answer is a machine, whatever the API costs."""
    advice = json.loads(run("advise", "--air-gapped", "--hardware", "8xH200", "--json").stdout)

    assert ("self-host", "8xH200") == (advice["place"], advice["best"]["offer"]["hardware"])


def test_air_gapped_without_a_machine_is_a_no() -> None:
    """Nothing that holds the model and no API allowed: exit 1, and why."""
    result = run("advise", "--air-gapped", "--hardware", "1xRTX4090")

    assert 1 == result.exit_code
    assert "1xRTX4090 does not hold it" in " ".join(result.stdout.split())


def test_non_thinking_is_another_model() -> None:
    """K2.7-Code always thinks, so K2.6 is named, with where to run it."""
    result = run("advise", "--non-thinking")

    assert result.stdout.startswith("other-model: take Kimi K2.6, and use the API")


def test_what_was_not_said_is_listed() -> None:
    """Defaults are named with their flags; what was said is not among them."""
    advice = json.loads(run("advise", "--images", "--cache-hit", "0.5", "--json").stdout)
    flags = {text.rsplit("--", 1)[1] for text in advice["answers"]["assumed"]}

    assert {"tokens-per-day", "input-output", "air-gapped"} <= flags
    assert not {"images", "cache-hit"} & flags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--air-gapped", "--api-only"), "--air-gapped and --api-only contradict"),
        (("--non-thinking", "--inspect-reasoning"), "contradict each other"),
        (("--hardware", "8xNOTHING"), "GPU 'NOTHING' is not known"),
        (("--model", "gpt-2"), "gpt-2"),
        (("--monthly-budget", "-5"), "--monthly-budget -5"),
        (("--monthly-budget", "nan"), "--monthly-budget nan"),
        (("--tokens-per-day", "1e9"), "--tokens-per-day"),
        (("--gpu-price", "-1"), "--gpu-price"),
    ],
)
def test_answers_that_none_can_mean(words: tuple[str, ...], said: str) -> None:
    """Contradictions and absurd numbers are exit 2, on stderr alone."""
    result = run("advise", *words)

    assert (2, "") == (result.exit_code, result.stdout)
    assert said in " ".join(result.stderr.split())


def dialogue(answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Answer each question on a real terminal as it comes; return the exit code and all text."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kimideploy", "advise"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    text, waiting = "", list(answers)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            text += os.read(ours, 4096).decode()
        except OSError:
            break
        if waiting and waiting[0][0] in text.rsplit("\n", 1)[-1]:
            os.write(ours, (waiting.pop(0)[1] + "\n").encode())
            text += "\n"
    code = process.wait(timeout=10)
    os.close(ours)
    assert not waiting, text
    return code, text


def test_a_dialogue_on_a_terminal() -> None:
    """Each question is asked once, a wrong number again, and the answer is that of the flags."""
    code, text = dialogue(
        [
            ("Tokens a day", "lots"),
            ("Tokens a day", "2M"),
            ("Input tokens", ""),
            ("Share of the input", "0.8"),
            ("Hours a day", ""),
            ("stay on your own", "n"),
            ("without thinking", "y"),
            ("read images", ""),
            ("figures that others", ""),
            ("prototype", ""),
            ("Hardware to weigh", "8xH200"),
        ]
    )

    assert 0 == code, text
    assert "'lots' is not a count" in text
    assert "read or keep the reasoning" not in text.split("Taken as the default")[0]
    said = run(
        *("advise", "--tokens-per-day", "2M", "--cache-hit", "0.8", "--non-thinking"),
        *("--hardware", "8xH200", "--input-output", "8", "--hours-per-day", "24"),
    ).stdout
    assert said.splitlines()[0] in text


def test_a_pipe_is_not_asked() -> None:
    """Without a terminal nothing waits for an answer."""
    done = subprocess.run(
        [sys.executable, "-m", "kimideploy", "advise"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "Taken as the default" in done.stdout
