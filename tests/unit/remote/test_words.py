"""Addresses, command lines and the wheel: what needs no connection."""

from __future__ import annotations

import io
import shlex
import subprocess
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.errors import RequestError
from kimideploy.remote.access import Access, checked_fingerprint
from kimideploy.remote.address import Address, parse
from kimideploy.remote.transport import command
from kimideploy.remote.wheel import wheel


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gpu1", Address("gpu1")),
        ("root@gpu1", Address("gpu1", "root")),
        ("root@gpu1:2222", Address("gpu1", "root", 2222)),
        ("ssh://root@gpu1:2222/", Address("gpu1", "root", 2222)),
        ("fe80::1", Address("fe80::1")),
        ("root@[fe80::1]:22", Address("fe80::1", "root", 22)),
        ("a.b-c.example", Address("a.b-c.example")),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    """Each way to write an address is read, and written again the same way."""
    assert address == parse(text)
    assert address == parse(str(address))


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=id", "root@-x", "-l@gpu1", "a b", "gpu1:0", "gpu1:99999", "gpu1:x",
     "@gpu1", "gpu1;id", "$(id)@gpu1", "gpu1\n", "[fe80::1", "a'b", "root@gpu1:²", "ssh://"],
)  # fmt: skip
def test_no_address(text: str) -> None:
    """What could be an option, two words or a command is refused."""
    with pytest.raises(RequestError, match="--host"):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_a_line_is_one_of_any_shell(words: list[str]) -> None:
    """Inside its single quotes the line holds nothing that fish, csh and sh read apart."""
    line = command(["printf", *words])

    assert "!" not in line or line.startswith("/bin/sh -c 'eval ")
    assert "\n" not in line
    assert ["printf"] == shlex.split(line)[:1] or line.startswith("/bin/sh")


def test_a_line_gives_the_words_back() -> None:
    """A POSIX shell hands every word on as it is."""
    words = ["a b", "it's", "x\ny", "!!", "\\", "☃", "", "$(id)", "-n"]
    line = command(["printf", "%s\\0", *words])

    said = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout

    assert words == said.decode().split("\0")[:-1]


def test_the_wheel_is_whole_and_the_same() -> None:
    """Made twice it is the same, and it holds the package, its profiles, templates and lists."""
    first, second = wheel(), wheel()

    assert (first.data, first.digest) == (second.data, second.digest)
    names = set(zipfile.ZipFile(io.BytesIO(first.data)).namelist())
    assert {
        "kimideploy/cli/app.py",
        "kimideploy/_profiles/tiers.yaml",
        "kimideploy/_templates/engine.service.j2",
        "kimideploy/rehearsal/flags/vllm-0.32.0.txt",
        "kimideploy/facts/probe/main.py",
    } <= names
    assert not [name for name in names if "__pycache__" in name]


def test_nothing_secret_is_shown() -> None:
    """What holds a password does not show it."""
    assert "sesame" not in repr(Access(sudo_password="sesame"))


@pytest.mark.parametrize("text", ["", "SHA256:", "MD5:00:11", "SHA256:" + "a" * 42 + "!"])
def test_no_fingerprint(text: str) -> None:
    """What is no SHA256 fingerprint is refused."""
    with pytest.raises(RequestError, match="fingerprint"):
        checked_fingerprint(text)
