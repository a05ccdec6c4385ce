"""Quoting, one function a reader. Each result is read back as the very word it was made from.

    shell_words         sh and bash, a command line
    shell_assignment    sh and bash, the word after `export`
    systemd_words       systemd, ExecStart=
    systemd_assignment  systemd, Environment=
    systemd_path        systemd, RequiresMountsFor= and its like
    file_assignment     systemd, a line of an EnvironmentFile=; sh reads it the same way

What a reader can't represent is a RequestError that names the word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from kimideploy.errors import RequestError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Why the second half: Unicode's non-characters; systemd takes them for broken UTF-8.
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
_CONTROL = re.compile(rf"[\x00-\x1f\x7f{_NONCHARACTERS}]")
_CONTROL_BUT_TAB_NEWLINE = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f{_NONCHARACTERS}]")
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def shell_words(words: Iterable[str]) -> str:
    """Return *words* as one command line of a POSIX shell."""
    return shlex.join(_passable(word) for word in words)


def shell_assignment(name: str, value: str) -> str:
    """Return NAME=value as one word of a POSIX shell."""
    return f"{_variable(name)}={shlex.quote(_passable(value))}"


def systemd_words(words: Iterable[str]) -> str:
    """Return *words* for an ExecStart= line: no specifier, no variable, no splitting.

    The first word must be a program's absolute path; systemd reads others' first signs as options.
    """
    return " ".join(_systemd(_passable(word)).replace("$", "$$") for word in words)


def systemd_assignment(name: str, value: str) -> str:
    """Return NAME=value for an Environment= line; RequestError for control characters, which
    systemd refuses in a value (tab and newline apart)."""
    if _CONTROL_BUT_TAB_NEWLINE.search(value):
        raise RequestError(f"systemd passes on no control characters: {name}={value!r}")
    return _systemd(f"{_variable(name)}={_passable(value)}")


def systemd_path(path: str) -> str:
    """Return *path* for a directive that takes paths; RequestError for what such lines can't hold:
    they keep backslashes and have no escape for a quotation mark."""
    if _CONTROL.search(path) or '"' in path or "\\" in path:
        raise RequestError(f"a unit can't name the path {path!r}")
    return f'"{_passable(path)}"'.replace("%", "%%")


def file_assignment(name: str, value: str) -> str:
    """Return NAME=value as a line of an environment file; RequestError for control characters,
    which end the line or are refused by one reader or another."""
    if _CONTROL.search(value):
        raise RequestError(f"an environment file can't hold control characters: {name}={value!r}")
    text = _passable(value)
    if _PLAIN.fullmatch(text):
        return f"{_variable(name)}={text}"
    body = re.sub(r'(["\\$`])', r"\\\1", text)
    return f'{_variable(name)}="{body}"'


def _systemd(word: str) -> str:
    """systemd's own quoting: C escapes inside double quotes, %% for a percent sign."""
    if _PLAIN.fullmatch(word):
        return word
    body = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{_CONTROL.sub(_bytes, body)}"'


def _bytes(sign: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in sign[0].encode())


def _passable(word: str) -> str:
    """Return *word* if execve and a UTF-8 file can carry it."""
    if "\x00" in word:
        raise RequestError(f"no program can be given a NUL character: {word!r}")
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"not text that a file can hold: {word!r}") from error
    return word


def _variable(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} is no name of an environment variable")
    return name
