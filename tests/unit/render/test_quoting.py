"""Quoting is right when the reader itself gives the words back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimideploy.errors import RequestError
from kimideploy.render.quoting import (
    file_assignment,
    shell_assignment,
    shell_words,
    systemd_assignment,
    systemd_words,
)

HOSTILE = (
    "a b",
    "",
    " ",
    "-x",
    "--",
    "'",
    '"',
    "\\",
    "\\\\n",
    "x\ny",
    "\n",
    "\t",
    "\r",
    "\x01\x1b[0m\x7f",
    "$HOME",
    "${HOME}",
    "$$",
    "$(touch /tmp/never)",
    "`touch /tmp/never`",
    "%h",
    "%%",
    "%",
    "100%i",
    "*",
    "~",
    "#",
    ";",
    "\\;",
    "&& true",
    "!",
    "é ☃ 🦀",
    "\ufffe",
    "\u2028",
    '{"method":"eagle3","model":"a/b"}',
    r"blk\.(3|4)\.ffn_.*_exps\.=CPU",
)
WORDS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
    st.text(st.sampled_from("\\\"'$%{}n x0 \n;#-=`"), max_size=8),
)
HURRIED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PRINT_ARGV = "import json, sys; print(json.dumps(sys.argv[1:]))"
PRINT_X = "import json, os; print(json.dumps(os.environ['X']))"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing; CI must have it")
        pytest.skip(f"{name} is missing")
    return found


def _json(shell: str, script: str) -> object:
    done = subprocess.run(
        [_program(shell), "-c", script], capture_output=True, check=True, text=True, env={}
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@given(words=st.lists(WORDS, max_size=6))
@HURRIED
def test_a_shell_gives_the_words_back(shell: str, words: list[str]) -> None:
    """A command line is split by a real shell into the words it was made from."""
    line = shell_words([sys.executable, "-c", PRINT_ARGV, *words])

    assert words == _json(shell, line)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@given(value=WORDS)
@HURRIED
def test_a_shell_exports_the_value(shell: str, value: str) -> None:
    """An exported variable holds the value it was made from."""
    line = f"export {shell_assignment('X', value)}\n" + shell_words([sys.executable, "-c", PRINT_X])

    assert value == _json(shell, line)


@given(words=st.lists(WORDS, max_size=6))
@HURRIED
def test_systemd_gives_the_words_back(tmp_path: Path, words: list[str]) -> None:
    """ExecStart= is parsed by systemd into the words it was made from."""
    dump = _dump(tmp_path, f"ExecStart={systemd_words(['/bin/true', *words])}")
    line = next(text for text in dump.split("\n") if "Command Line: " in text)

    assert ["/bin/true", *words] == _unquote(line.partition("Command Line: ")[2])


@given(value=WORDS)
@HURRIED
def test_systemd_sets_the_value(tmp_path: Path, value: str) -> None:
    """Environment= is parsed by systemd into the value it was made from, or refused by us."""
    try:
        line = systemd_assignment("X", value)
    except RequestError:
        assert _odd(value.replace("\t", "").replace("\n", ""))
        return
    dump = _dump(tmp_path, f"Environment={line}\nEnvironment=END=\nExecStart=/bin/true")
    found = re.search(r"\t\tEnvironment: X=(.*?)\n\t\tEnvironment: END=\n", dump, re.DOTALL)

    assert found is not None
    assert value == found[1]


@given(value=WORDS)
@HURRIED
def test_an_environment_file_is_read_by_a_shell(tmp_path: Path, value: str) -> None:
    """A line of an environment file, sourced by sh, sets the value it was made from."""
    try:
        line = file_assignment("X", value)
    except RequestError:
        assert _odd(value)
        return
    (tmp_path / "x.env").write_text(line + "\n", newline="")
    script = f"set -a; . {shell_words([str(tmp_path / 'x.env')])}; set +a\n"

    assert value == _json("sh", script + shell_words([sys.executable, "-c", PRINT_X]))


@given(value=WORDS)
@HURRIED
def test_an_environment_file_is_read_by_systemd(tmp_path: Path, value: str) -> None:
    """systemd's reader of such files, which its environment.d generator shares, agrees.

    That generator expands variables and drops empty ones; an EnvironmentFile= does neither.
    """
    generator = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
    if "$" in value or not value or _odd(value):
        return
    (tmp_path / "environment.d").mkdir(exist_ok=True)
    (tmp_path / "environment.d" / "x.conf").write_text(file_assignment("X", value) + "\n")
    said = subprocess.run(
        [_program(generator)],
        capture_output=True,
        check=True,
        text=True,
        env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
    ).stdout
    line = next(text for text in said.split("\n") if text.startswith("X="))

    assert value == _unescape(line.removeprefix("X="))


@pytest.mark.parametrize(
    "quote",
    [
        lambda word: shell_words([word]),
        lambda word: systemd_words([word]),
        lambda word: shell_assignment("X", word),
        lambda word: systemd_assignment("X", word),
        lambda word: file_assignment("X", word),
    ],
)
@pytest.mark.parametrize("word", ["a\x00b", "\ud800"])
def test_what_no_reader_can_hold_is_refused(quote: Callable[[str], str], word: str) -> None:
    """NUL and text that is no Unicode are refused with the word in the message."""
    with pytest.raises(RequestError, match=r"a.x00b|ud800"):
        quote(word)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "É"])
def test_a_bad_variable_name_is_refused(name: str) -> None:
    """A name that a shell would not take is refused everywhere."""
    for quote in (shell_assignment, systemd_assignment, file_assignment):
        with pytest.raises(RequestError):
            quote(name, "x")


def test_an_environment_file_holds_no_newline() -> None:
    """A value with a newline would become two lines, so it is refused."""
    with pytest.raises(RequestError, match="environment file"):
        file_assignment("X", "a\nSECRET=b")


def _odd(value: str) -> bool:
    """Whether *value* holds a control character or one that Unicode gives no meaning."""
    return any(
        sign < " "
        or sign == "\x7f"
        or "\ufdd0" <= sign <= "\ufdef"
        or (ord(sign) & 0xFFFE) == 0xFFFE
        for sign in value
    )


def _dump(folder: Path, lines: str) -> str:
    """Return what systemd understood of a service with *lines*."""
    unit = folder / "quoting.service"
    unit.write_text(f"[Service]\n{lines}\n", newline="")
    done = subprocess.run(
        [_program("systemd-analyze"), "verify", "--man=no", str(unit)],
        capture_output=True,
        check=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug"},
    )
    text = done.stderr.decode() + done.stdout.decode()
    return text.partition("-> Unit quoting.service:")[2].partition("-> Unit")[0]


def _unquote(line: str) -> list[str]:
    """Undo how systemd prints a command line, then its `$$`, which it undoes at execve."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|[^ ]+', line)
    return [_unescape(word).replace("$$", "$") for word in words]


def _unescape(word: str) -> str:
    if not word.startswith('"'):
        return word
    named = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
    raw = bytearray()
    for octal, sign, plain in re.findall(r"\\([0-7]{3})|\\(.)|([^\\]+)", word[1:-1], re.DOTALL):
        if octal:
            raw.append(int(octal, 8))
        else:
            raw += (named.get(sign, sign) if sign else plain).encode()
    return raw.decode()
