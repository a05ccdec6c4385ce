"""README.md says what the program does: helps, transcripts, exit codes, the example file."""

from __future__ import annotations

import re

import pytest

from kimideploy import errors
from kimideploy.cli.app import COMMANDS
from kimideploy.cli.boundary import BUG, INTERRUPTED
from kimideploy.cli.config import Config
from kimideploy.documents import read_document
from tests.cli.readme import README, Block, blocks, lasting, output

TEXT = README.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.command)
def test_block_is_what_the_command_prints(block: Block) -> None:
    """Each block is what its command prints; `python -m tests.cli.readme` writes it anew."""
    assert lasting(output(block.command)) == lasting(block.text)


def test_there_are_a_help_and_transcripts() -> None:
    """The help, a rehearsal and a plan that does not fit are all shown."""
    commands = [block.command for block in blocks()]

    assert "kimideploy --help" in commands
    assert any(command.startswith("kimideploy serve --rehearse") for command in commands)
    assert any(command.startswith("kimideploy plan") for command in commands)


def test_exit_codes_are_those_of_the_program() -> None:
    """The table has one row for each exit code that the program knows."""
    rows = re.findall(r"^\| (\d+) \| ", TEXT, re.MULTILINE)

    branches = [kind.exit_code for kind in errors.KimiError.__subclasses__()]
    assert sorted([0, 1, *branches, BUG, INTERRUPTED]) == [int(row) for row in rows]


def test_every_command_is_told() -> None:
    """Each command has a row of its own, and no other has."""
    rows = re.findall(r"^\| `kimideploy ([a-z]+)` \|", TEXT, re.MULTILINE)

    assert list(COMMANDS) == rows


def test_example_file_is_read() -> None:
    """The kimideploy.yaml that is shown is one that is understood."""
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)

    config = read_document(example, Config, name="README.md")

    assert "8xH200" == config.hardware
