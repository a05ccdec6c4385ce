"""`kimideploy cost`: the bill of a plan, in words and as JSON, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.run import run, spawn

BOX = ("--hardware", "8xH200")


def test_the_bill_in_words() -> None:
    """What is paid, what a million tokens cost, and the break-even, in 80 columns."""
    result = run("cost", *BOX, "--tokens-per-day", "500M")

    assert (0, "") == (result.exit_code, result.stderr)
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in (
        "the API is cheaper: $",
        "Break-even",
        "USD per million tokens",
        "What decides it",
    ):
        assert word in result.stdout
    assert "$0.95 in, $0.19 cached, $4.00 out per million" in " ".join(result.stdout.split())


def test_the_bill_as_json() -> None:
    """The JSON carries the traffic, both months and the curve, with sources."""
    made = json.loads(run("cost", *BOX, "--tokens-per-day", "34M", "--json").stdout)

    assert "kimideploy.cost/1" == made["schema"]
    assert 34e6 == made["traffic"]["tokens_per_day"]
    assert made["api"]["url"].startswith("https://")
    assert "providers" in made["rent"]["basis"]
    assert len(made["curve"]) == 25
    expected = 34e6 / 1e6 * 365 / 12 * (0.95 * 4 / 9 + 0.19 * 4 / 9 + 4.0 / 9)
    assert pytest.approx(expected) == made["api_month"]


def test_a_saved_plan_costs_what_its_options_do() -> None:
    """--plan and the options that made it give the same bill."""
    Path("plan.json").write_text(run("plan", *BOX, "--json").stdout, "utf-8")

    assert run("cost", *BOX, "--json").stdout == run("cost", "--plan", "plan.json", "--json").stdout


def test_prices_of_ones_own() -> None:
    """Prices from the command line replace those of the profiles."""
    made = json.loads(
        run("cost", *BOX, "--gpu-price", "2-8", "--api-price", "1/5/0.5", "--json").stdout
    )

    assert {"low": 2.0, "typical": 4.0, "high": 8.0} == made["rent"]["gpu_hour"]
    assert (1.0, 5.0, 0.5) == tuple(made["api"][key] for key in ("input", "output", "cached"))
    assert pytest.approx(32.0) == made["machine_hour"]["typical"]


def test_cheap_machines_break_even() -> None:
    """At a low rent the break-even is a number of tokens a day, and the verdict turns there."""
    words = ("cost", "--hardware", "4xB300", "--gpu-price", "1.50", "--cache-hit", "0.8")
    even = json.loads(run(*words, "--json").stdout)["break_even"]["typical"]

    below = run(*words, "--tokens-per-day", f"{even / 2:.0f}").stdout
    above = run(*words, "--tokens-per-day", f"{even * 1.2:.0f}").stdout

    assert below.startswith("the API is cheaper")
    assert above.startswith("the machine is cheaper")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tokens-per-day", "many"), "--tokens-per-day 'many' is not a count"),
        (("--tokens-per-day", "0"), "--tokens-per-day 0 is not between"),
        (("--tokens-per-day", ""), "--tokens-per-day '' is not a count"),
        (("--cache-hit", "2"), "--cache-hit 2 is not between 0 and 1"),
        (("--cache-hit", "nan"), "--cache-hit nan is not between"),
        (("--hours-per-day", "30"), "--hours-per-day 30 is not between"),
        (("--input-output", "-1"), "--input-output -1 is not between"),
        (("--depth", "0"), "--depth 0 is not between"),
        (("--gpu-price", "free"), "--gpu-price 'free' is not USD"),
        (("--gpu-price", "0"), "--gpu-price 0 is no price"),
        (("--gpu-price", "3-2"), "--gpu-price goes from the lower price"),
        (("--api-price", "1"), "--api-price '1' is not USD per million"),
        (("--api-price", "1/2/3"), "--api-price 3 for cached input is more than 1"),
        (("--api-price", "nobody"), "no price of nobody"),
        (("--terms", "spot"), "no spot price of"),
        (("--plan", "no.json"), "--hardware is decided by the plan in no.json"),
    ],
)
def test_what_no_bill_has(words: tuple[str, ...], said: str) -> None:
    """Absurd numbers and contradictions are exit 2 with the flag, and nothing on stdout."""
    result = run("cost", "--hardware", "4xB300", *words)

    assert (2, "") == (result.exit_code, result.stdout)
    assert said in " ".join(result.stderr.split())


def test_no_price_asks_for_one() -> None:
    """A card that nobody's price is known of is asked for, and then counted with."""
    words = ("cost", "--hardware", "1xRTX4090+768GiB")
    without = run(*words)

    assert 2 == without.exit_code
    assert "--gpu-price" in without.stderr
    assert 0 == run(*words, "--gpu-price", "0.60").exit_code


def test_nothing_fits_is_a_no() -> None:
    """Hardware that holds no model has no bill; it is the plan's own "no"."""
    result = run("cost", "--hardware", "1xRTX4090")

    assert 1 == result.exit_code
    assert result.stdout == run("plan", "--hardware", "1xRTX4090").stdout


def test_a_plan_file_does_not_steer_the_terminal() -> None:
    """Escape sequences of a saved plan come out as signs, in tables, text and errors."""
    plan = json.loads(run("plan", *BOX, "--json").stdout)
    plan["candidate"] |= {"gpu": "\x1b[31mh200", "checkpoint": "\x1b[2Jint4", "tier": "\x07tier"}
    Path("plan.json").write_text(json.dumps(plan), "utf-8")

    refused = run("cost", "--plan", "plan.json")
    shown = run("cost", "--plan", "plan.json", "--gpu-price", "2")
    beside = run("plan", "compare", "plan.json", "8xH200")

    assert (2, 0, 0) == (refused.exit_code, shown.exit_code, beside.exit_code)
    for text in (refused.stderr, shown.stdout, beside.stdout):
        assert not {"\x1b", "\x07"} & set(text)


def test_an_ascii_terminal_gets_ascii() -> None:
    """Where the locale has no …, the bill is written without."""
    result = spawn(
        "cost", *BOX, env={"PATH": "/usr/bin", "HOME": "/nonexistent", "PYTHONIOENCODING": "ascii"}
    )

    assert 0 == result.returncode
    assert re.search(r"\$\d", result.stdout)
