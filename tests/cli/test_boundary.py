"""The error boundary: what a command raises, and what the user and the shell get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from kimideploy.cli.boundary import Boundary, wants_json
from kimideploy.errors import (
    BusyError,
    EngineError,
    KimiError,
    MachineError,
    RequestError,
    WeightsError,
)

CODES = [
    (RequestError, 2, "request"),
    (MachineError, 3, "machine"),
    (WeightsError, 4, "weights"),
    (EngineError, 5, "engine"),
    (BusyError, 6, "busy"),
]


def outcome(act: Callable[[], object], *words: str) -> Result:
    """Return what a command that does *act* leaves, in the root group and in one below it."""
    app = typer.Typer(cls=Boundary, rich_markup_mode=None)
    inner = typer.Typer(rich_markup_mode=None)

    def command(
        *,
        number: int = 0,
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        del number, as_json
        act()

    app.command("do")(command)
    inner.command("do")(command)
    app.add_typer(inner, name="inner")
    results = [
        CliRunner().invoke(app, [*path, *words], prog_name="test")
        for path in (["do"], ["inner", "do"])
    ]
    codes = {result.exit_code for result in results}
    assert 1 == len(codes), "a command in a group ends as one at the top"
    return results[-1]


def raising(error: BaseException) -> Callable[[], object]:
    """Return a function that raises *error*."""

    def act() -> object:
        raise error

    return act


@pytest.mark.parametrize(("kind", "code", "_name"), CODES)
def test_expected_failure_is_a_sentence(kind: type[KimiError], code: int, _name: str) -> None:
    """An expected failure is a sentence, a hint and its own exit code."""
    result = outcome(raising(kind("it rains", hint="take a coat")))

    assert code == result.exit_code
    assert "error: it rains\n\nhint: take a coat\n" == result.stderr
    assert "" == result.stdout


@pytest.mark.parametrize(("kind", "code", "name"), CODES)
def test_expected_failure_as_json(kind: type[KimiError], code: int, name: str) -> None:
    """With --json it is one JSON object on stderr."""
    result = outcome(raising(kind("it rains – again")), "--json")

    expected = {"kind": name, "message": "it rains – again", "hint": None, "exit_code": code}
    assert {"error": expected} == json.loads(result.stderr)
    assert code == result.exit_code


def test_usage_error_is_a_sentence() -> None:
    """A wrong option is told in our words, with the help that explains it."""
    result = outcome(raising(AssertionError()), "--number", "many")

    assert 2 == result.exit_code
    assert result.stderr.startswith("error: invalid value for '--number': 'many' is not")
    assert result.stderr.endswith("\nhint: test inner do --help\n")


def test_usage_error_as_json() -> None:
    """A usage error is one JSON object, too."""
    result = outcome(raising(AssertionError()), "--json", "--wrong")

    error = json.loads(result.stderr)["error"]
    assert (2, 2, "request") == (result.exit_code, error["exit_code"], error["kind"])
    assert error["message"].startswith("no such option: --wrong")


def test_interrupt_ends_with_130() -> None:
    """Ctrl-C is no bug."""
    result = outcome(raising(KeyboardInterrupt()))

    assert (130, "", "") == (result.exit_code, result.stdout, result.stderr)


def test_exit_code_of_a_command_stays() -> None:
    """A command that says no ends with its own code."""
    assert 1 == outcome(raising(typer.Exit(1))).exit_code


def test_bug_writes_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other exception is a bug: a sentence with the path of a traceback, and 70."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    result = outcome(raising(ValueError("a bad thing")))

    assert 70 == result.exit_code
    assert result.stderr.startswith("error: this is a bug of kimideploy: ValueError; the traceback")
    path = Path(result.stderr.rpartition(" ")[2].strip())
    assert "ValueError: a bad thing" in path.read_text(encoding="utf-8")
    assert 0o600 == path.stat().st_mode & 0o777


def test_bug_without_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log folder can't be made the traceback goes to the temporary one."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    result = outcome(raising(ValueError("a bad thing")))

    path = Path(result.stderr.rpartition(" ")[2].strip())
    assert path.is_file()
    path.unlink()


@pytest.mark.parametrize(
    "words", [("plan", "--hardware", "8xH200"), ("profiles", "list"), ("--version",)]
)
def test_reader_that_left_is_no_failure(words: tuple[str, ...]) -> None:
    """A reader that closes the pipe ends the command quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "kimideploy", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writer)

    assert "" == ended.stderr
    assert ended.returncode in {0, 1}


def test_pipe_of_the_command_that_broke_is_a_bug() -> None:
    """A broken pipe that is not stdout's is not passed over in silence."""
    assert 70 == outcome(raising(BrokenPipeError())).exit_code


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--json"], True), (["a", "--json", "--"], True), (["--", "--json"], False), ([], False)],
)
def test_json_is_asked_for_before_the_end_of_options(words: list[str], expected: bool) -> None:
    """What follows `--` is an argument, not a wish."""
    assert expected == wants_json(words)
