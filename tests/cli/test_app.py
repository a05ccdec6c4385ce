"""The command line as a whole: names, helps, examples, completion, and what it leaves unread."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from kimideploy import __version__
from kimideploy.cli.app import COMMANDS, EXAMPLES, load
from tests.cli.run import run, spawn

NO_WAY_TO_HELP = ("rich", "msgspec", "yaml", "jinja2", "paramiko", "huggingface_hub", "pydantic")


def paths() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and of every command inside one."""
    for name in COMMANDS:
        yield (name,)
        for inner in getattr(load(name), "commands", {}):
            yield (name, inner)


@pytest.mark.parametrize("name", COMMANDS)
def test_table_says_what_the_command_says(name: str) -> None:
    """The short help of the table is the first line of the command's own help."""
    assert COMMANDS[name] == (load(name).help or "").strip().splitlines()[0]


@pytest.mark.parametrize("path", [(), *paths()], ids=" ".join)
def test_help_has_examples_in_80_columns(path: tuple[str, ...]) -> None:
    """Every help ends with examples, and no line of it is wider than 80 columns."""
    result = run(*path, "--help")

    assert 0 == result.exit_code
    assert "\n  Examples:\n    kimideploy " in result.stdout
    assert [] == [line for line in result.stdout.splitlines() if len(line) > 80]


def every_example() -> Iterator[str]:
    """Yield each command line of every EXAMPLES, pipes and redirections taken apart."""
    for name in COMMANDS:
        for example in import_module(f"kimideploy.cli.{name}").EXAMPLES:
            for part in example.replace("&&", "|").split("|"):
                yield part.partition(">")[0].strip()
    yield from (example.partition(">")[0].strip() for example in EXAMPLES)


@pytest.mark.parametrize("example", sorted(set(every_example())))
def test_example_is_understood(example: str) -> None:
    """Each example's words are options and arguments that its command has."""
    program, name, *words = shlex.split(example)

    context: Any = load(name).make_context(name, words)

    assert "kimideploy" == program
    assert name == context.info_name


def test_help_imports_no_command() -> None:
    """`--help` reads neither a command nor a heavy library."""
    script = (
        "import sys, kimideploy.cli.app as a\n"
        "sys.argv = ['kimideploy', '--help']\n"
        "try: a.main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stderr.split()

    commands = [f"kimideploy.cli.{name}" for name in COMMANDS]
    assert "typer" in found
    assert [] == [name for name in (*NO_WAY_TO_HELP, *commands) if name in found]


def test_plan_imports_no_rich() -> None:
    """A plan is shown without Rich, and made without what only other commands need."""
    script = (
        "import sys, kimideploy.cli.app as a\n"
        "sys.argv = ['kimideploy', 'plan', '--hardware', '8xH200']\n"
        "try: a.main()\n"
        "except SystemExit as end: assert not end.code, end\n"
        "print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stderr.split()

    unneeded = ("rich", "jinja2", "paramiko", "huggingface_hub", "pydantic", "pynvml")
    assert "msgspec" in found
    assert [] == [name for name in unneeded if name in found]


def test_version() -> None:
    """`--version` prints the version of the package."""
    result = run("--version")

    assert (0, f"kimideploy {__version__}\n") == (result.exit_code, result.stdout)


def test_no_arguments_show_the_help() -> None:
    """Without a word it shows the help, and the request is wrong."""
    result = run()

    assert 2 == result.exit_code
    assert "Commands:" in result.stderr


def test_unknown_command_names_the_nearest() -> None:
    """A misspelt command is a wrong request with a suggestion."""
    result = run("insepct")

    assert 2 == result.exit_code
    assert "error: no such command 'insepct'; did you mean `inspect`?" in result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pl", "plan"),
        ("plan --tier int4-h", "int4-h200"),
        ("plan --model kimi-k2.7", "kimi-k2.7-code"),
        ("plan --checkpoint nvfp", "nvfp4"),
        ("plan --engine sg", "sglang"),
        ("plan --hardware 2x8xh20", "2x8xh200"),
    ],
)
def test_shell_completion(words: str, expected: str) -> None:
    """The shell is offered commands, and names from the profiles."""
    line = f"kimideploy {words}"
    found = spawn(
        env={
            **os.environ,
            "_KIMIDEPLOY_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
    )

    assert expected in found.stdout.split()


def test_completion_with_a_broken_profile(tmp_path: Path) -> None:
    """A profile of the user's own that can't be read does not disturb their typing."""
    own = tmp_path / "XDG_CONFIG_HOME" / "kimideploy" / "profiles" / "gpus"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("id: [", encoding="utf-8")

    found = spawn(
        env={
            **os.environ,
            "_KIMIDEPLOY_COMPLETE": "complete_bash",
            "COMP_WORDS": "kimideploy plan --tier int4-h",
            "COMP_CWORD": "3",
        }
    )

    assert "int4-h200" in found.stdout.split()
    assert "" == found.stderr
    assert "mine.yaml:" in run("plan", "--hardware", "8xH200").stderr


def test_completion_script() -> None:
    """The script that a shell installs calls kimideploy back."""
    found = spawn(env={**os.environ, "_KIMIDEPLOY_COMPLETE": "source_zsh"})

    assert "_KIMIDEPLOY_COMPLETE=complete_zsh" in found.stdout
